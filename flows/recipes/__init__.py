"""What a recipe is: a problem that can be trained; `finding` finds those that come with hotswap and a user's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flows.data.split import ByContent, Split
from flows.recipes.tuning import Space
from flows.tasks import Classification, Task, UnusableTargets
from serving.protocol.errors import HotswapError

if TYPE_CHECKING:
    import keras

    from flows.training.course import Training

_SLICE_DROP = 0.25


class InvalidRecipe(HotswapError):
    """A recipe contradicts itself."""


class InvalidThresholds(HotswapError):
    """What a recipe asks of its models cannot be asked."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What a recipe asks of a candidate; docs/decisions/0005-gates.md says why."""

    min_accuracy: float | None = None
    """share of the held-out rows that must be right"""
    min_macro_f1: float | None = None
    """mean over the classes of the harmonic mean of precision and recall"""
    max_log_loss: float | None = None
    """mean of -log(probability of the true class), nats"""
    at_least: Mapping[str, float] = field(default_factory=dict)
    """floors of further metrics by name, such as ``{"roc_auc": 0.8, "recall_yes": 0.6, "r2": 0.3}``"""
    at_most: Mapping[str, float] = field(default_factory=dict)
    """limits of metrics that should be small, such as ``{"mae": 3.0, "ece": 0.1}``"""
    margin: float | None = None
    """loss of the mean score of a row against the champion that counts as none, of accuracy for classes; None: the
    smallest that the held-out rows can decide with a power of 0.8, and at least 0.02"""
    confidence: float = 0.95
    """of the one-sided bounds of the difference to the champion"""
    inconclusive_passes: bool = False
    """whether a candidate passes that the held-out rows show to be neither good enough nor too bad"""
    slice_columns: tuple[str, ...] = ()
    """features whose slices are looked at, beside the classes: by value, or in quarters where it has more than ten"""
    min_slice_rows: int = 20
    """smaller slices are not judged"""
    max_slice_drop: float | None = None
    """how far a slice's mean score may be below that of all rows; None: 0.25 where a limit of a metric is set, and else
    slices are shown only"""
    allowed_ops: tuple[str, ...] = ()
    """ops that touch files, processes, networks or Python and are allowed all the same, such as ``ReadFile``"""
    max_bytes: int = 1 << 30
    """of all files of the SavedModel"""

    def __post_init__(self) -> None:
        shares = {
            "min_accuracy": self.min_accuracy,
            "min_macro_f1": self.min_macro_f1,
            "margin": self.margin,
            "max_slice_drop": self.max_slice_drop,
        }
        for name, value in shares.items():
            if value is not None and not 0 <= value <= 1:
                raise InvalidThresholds(f"The threshold {name} is a share from 0 to 1, not {value}")
        if both := sorted(self.at_least.keys() & self.at_most.keys()):
            raise InvalidThresholds(f"The metrics {both} have a floor and a limit above: keep the one that is meant")
        if not 0.5 < self.confidence < 1:
            raise InvalidThresholds(f"The threshold confidence is between 0.5 and 1, not {self.confidence}")

    @property
    def floors(self) -> dict[str, float]:
        """The metrics that must be at least so large, by scikit-learn's name."""
        named = {"accuracy": self.min_accuracy, "macro_f1": self.min_macro_f1}
        return {**{name: value for name, value in named.items() if value is not None}, **self.at_least}

    @property
    def ceilings(self) -> dict[str, float]:
        """The metrics that must be at most so large."""
        return {**({} if self.max_log_loss is None else {"log_loss": self.max_log_loss}), **self.at_most}

    @property
    def has_limits(self) -> bool:
        """Whether the recipe says itself how good a model has to be; if not, simple models say it."""
        return bool(self.floors or self.ceilings)

    @property
    def slice_drop(self) -> float | None:
        """How far a slice may be below the whole; None where slices are shown only."""
        if self.max_slice_drop is None and self.has_limits:
            return _SLICE_DROP
        return self.max_slice_drop


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that the flow needs to know about one problem."""

    name: str
    """the model's name, in the registry and on the server"""
    load: Callable[[], tuple[Any, ...]]
    """
    gives examples and targets, and optionally columns that the model is not asked with; or a `tf.data.Dataset` of rows.

    The examples are an array [rows, ...], arrays by the name of the input, or a data frame. The targets are as the task
    has them: of a classification integers [rows], counted from 0 in the order of the class names, or these names.
    """
    build: Callable[..., keras.Model]
    """
    gives a Keras model for the training examples, an array or a dict of arrays by input: raw values in, answers of the
    task out; a model that is compiled is trained as it was compiled

    Further parameters have defaults, and are for `tunable`.
    """
    feature_names: tuple[str, ...] = ()
    """names of the values of a row, where the examples are one array [rows, features]"""
    class_names: tuple[str, ...] = ()
    """of a classification whose `task` is left to them"""
    task: Task | None = None
    """what is asked of the model; None: one of the classes of `class_names`"""
    epochs: int = 20
    """how often every row is seen; at most, with a callback that stops early"""
    batch_size: int = 32
    """the rows of a step of the training"""
    learning_rate: float = 0.01
    """of Adam, where the model is not compiled"""
    thresholds: Thresholds = Thresholds()
    """what a model has to reach"""
    rows_independent: bool = True
    """whether the answer to a row must be the same whatever rows are asked with it; False for a model that is meant to
    compare the rows of a request"""
    split: Split = ByContent()
    """which rows are held out"""
    missing_values: bool = False
    """whether the model takes NaN for a missing number"""
    fit: Callable[[keras.Model, Training], Any] | None = None
    """
    a training loop of one's own, with the model of `build` and what hotswap would train it with; returns Keras's
    history, or a dict of a list of numbers by metric, or nothing
    """
    callbacks: Callable[[], Sequence[keras.callbacks.Callback]] | None = None
    """makes callbacks for Keras, such as ``lambda: [keras.callbacks.EarlyStopping(patience=3)]``"""
    validation: float | Callable[[], tuple[Any, ...]] = 0.0
    """the share of the training rows that is kept to validate by, or a function that gives such rows as `load` does"""
    class_weight: Mapping[str, float] | None = None
    """how much a row of each class counts in training, by the class's name; 1 where it is not given"""
    sample_weight: str | None = None
    """the column, of the inputs or of those beside them, that says how much a row counts in training"""
    tunable: Space = field(default_factory=dict)
    """
    what ``--tune`` searches, by setting: ``learning_rate``, ``batch_size``, ``epochs``, or a parameter of `build`
    beside the examples, such as ``{"learning_rate": Between(0.001, 0.1, log=True), "width": OneOf(16, 32, 64)}``
    """

    def __post_init__(self) -> None:
        if not callable(self.validation) and not 0 <= self.validation < 1:
            raise InvalidRecipe(f"The validation share of {self.name!r} is from 0 to 1, not {self.validation}")
        if self.task is None and not self.class_names:
            raise UnusableTargets(f"The recipe {self.name!r} names neither a task nor class names")
        if not self.feature_names:
            return
        if unknown := set(self.thresholds.slice_columns).difference(self.feature_names):
            raise InvalidThresholds(f"The recipe {self.name!r} has no feature {sorted(unknown)} to look at slices of")


def task_of(recipe: Recipe) -> Task:
    """What a recipe asks of its model."""
    return recipe.task or Classification(recipe.class_names)
