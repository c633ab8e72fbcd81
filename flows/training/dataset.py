"""The data of a recipe: checked, split into rows to train on and rows held out, and identified by a digest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flows.data.ids import row_ids
from flows.data.rows import ONLY_INPUT, Inputs, Rows, count
from flows.data.split import HeldOut
from flows.recipes import Recipe, task_of
from flows.tasks import Classification, Task
from flows.user_code import of_recipe
from serving.protocol.errors import HotswapError

if TYPE_CHECKING:
    from flows.training.streams import Stream


class UnusableData(HotswapError):
    """This data cannot be trained on."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """A recipe's rows, split; `digest` is the SHA-256 of all of them with their names."""

    train: Rows
    test: Rows
    feature_names: tuple[str, ...]
    task: Task
    digest: str
    stream: Stream | None = None
    """the training rows where they are too many for memory; `train` then has some of them"""

    @property
    def training_ids(self) -> NDArray[np.uint64]:
        """The ids of all training rows, sorted."""
        return np.unique(self.train.ids) if self.stream is None else self.stream.ids

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of a classification; else empty."""
        return self.task.class_names if isinstance(self.task, Classification) else ()

    def test_column(self, name: str) -> NDArray[Any]:
        """The held-out values [rows] of a feature, an input or a column beside the inputs."""
        if name in self.test.columns:
            return self.test.columns[name]
        return self.test.inputs[ONLY_INPUT][:, self.feature_names.index(name)]


def load_dataset(recipe: Recipe) -> Dataset:
    """
    Load, check and split the data of `recipe`.

    Raises:
        RecipeFailed: Its own code failed.
        UnusableData: The data has no rows, NaN, one class, or another shape than the recipe says.
        InvalidSplit: It cannot be split as the recipe says.
    """
    given = _loaded(recipe, recipe.load)
    if hasattr(given, "element_spec"):  # a tf.data.Dataset
        from flows.training.streams import streamed

        return streamed(recipe, given)
    rows = _rows_of(given, recipe)
    held_out = recipe.split.held_out(rows)
    if isinstance(recipe.split, HeldOut):
        train, test = rows, load_rows(recipe, recipe.split.load)
    else:
        if isinstance(task_of(recipe), Classification):
            held_out = without_lone_classes(rows, held_out)
        train, test = rows.take(~held_out), rows.take(held_out)
    for part, name in ((train, "train on"), (test, "hold out")):
        if not len(part):
            raise UnusableData(f"The data of {recipe.name!r} leaves no rows to {name}: {_too_few(rows)}")
    return dataset_of(train, test, recipe.feature_names or tuple(rows.inputs), task_of(recipe))


def dataset_of(train: Rows, test: Rows, feature_names: tuple[str, ...], task: Task) -> Dataset:
    """The data set of these rows, with its digest."""
    return Dataset(train, test, feature_names, task, _digest((train, test), feature_names, repr(task)))


def load_rows(recipe: Recipe, load: Any) -> Rows:
    """
    The rows that a function of the recipe's gives, checked.

    Raises:
        RecipeFailed: It failed.
        UnusableData: They cannot be used.
    """
    return _rows_of(_loaded(recipe, load), recipe)


def _loaded(recipe: Recipe, load: Any) -> Any:
    with of_recipe(f"The data of {recipe.name!r} cannot be loaded"):
        return load()


def _rows_of(given: Any, recipe: Recipe) -> Rows:
    with of_recipe(f"The data of {recipe.name!r} cannot be loaded"):
        examples, targets, *extras = given
    inputs = named_arrays(examples, recipe.name)
    return check(inputs, np.asarray(targets), named_arrays(extras[0], recipe.name) if extras else {}, recipe)


def named_arrays(examples: Any, name: str) -> dict[str, NDArray[Any]]:
    """
    Arrays by name, from a bare array, a mapping of arrays or a data frame; floats as float32, texts as objects.

    Raises:
        UnusableData: They are no arrays of numbers, booleans or strings.
    """
    if hasattr(examples, "columns") and hasattr(examples, "dtypes"):
        examples = {str(column): examples[column].to_numpy() for column in examples.columns}
    if not isinstance(examples, Mapping):
        examples = {ONLY_INPUT: examples}
    return {key: _as_array(value, key, name) for key, value in examples.items()}


def _as_array(value: Any, key: str, name: str) -> NDArray[Any]:
    try:
        array = np.asarray(value)
    except ValueError as exc:
        raise UnusableData(f"The data of {name!r} is no array in {key!r}: {exc}") from exc
    if array.dtype.kind == "f":
        return array.astype(np.float32, copy=False)
    if array.dtype.kind in "biu":
        return array
    if array.dtype == object and all(type(each) is str for each in array.flat):
        return array
    if array.dtype.kind in "US" or (array.dtype == object and all(isinstance(each, str) for each in array.flat)):
        return array.astype(str).astype(object)
    raise UnusableData(f"The data of {name!r} is neither numbers, booleans nor strings in {key!r}, but {array.dtype}")


def check(inputs: Inputs, targets: NDArray[Any], extras: Inputs, recipe: Recipe) -> Rows:
    """
    The rows, when a model can be trained and judged on them.

    Raises:
        UnusableData: They cannot; the message says why and what to do.
        UnusableTargets: The targets do not fit the task.
    """
    inputs = check_inputs(inputs, targets, extras, recipe)
    return Rows(inputs, task_of(recipe).targets(targets, recipe.name), row_ids(inputs), extras)


def check_inputs(inputs: Inputs, targets: NDArray[Any], extras: Inputs, recipe: Recipe) -> Inputs:
    """
    The inputs, when a model can be trained on them.

    Raises:
        UnusableData: They cannot; the message says why and what to do.
    """
    name = recipe.name
    if not count(inputs) or not targets.size:
        raise UnusableData(f"The data of {name!r} has no rows: check what its load() returns")
    if recipe.feature_names and inputs.keys() == {ONLY_INPUT}:
        inputs = {ONLY_INPUT: _as_features(inputs[ONLY_INPUT], targets, recipe)}
    lengths = {key: len(array) for key, array in {**inputs, **extras}.items()}
    if uneven := {key: length for key, length in lengths.items() if length != len(targets)}:
        raise UnusableData(f"The data of {name!r} has {len(targets)} targets, but {uneven} rows in its columns")
    if not recipe.missing_values:
        _check_finite(inputs, name)
    return inputs


def _as_features(examples: NDArray[Any], targets: NDArray[Any], recipe: Recipe) -> NDArray[np.float32]:
    """Float32 [rows, features], as the recipe names them."""
    if examples.ndim != 2 or examples.shape[1] != len(recipe.feature_names) or len(targets) != len(examples):
        raise UnusableData(
            f"The data of {recipe.name!r} has shapes {examples.shape} and {targets.shape}: "
            f"expected [rows, {len(recipe.feature_names)}] and [rows]"
        )
    if examples.dtype == object:
        raise UnusableData(f"The data of {recipe.name!r} is not numbers, and its features are: give each column a name")
    return examples.astype(np.float32)


def _check_finite(inputs: Inputs, name: str) -> None:
    for key, array in inputs.items():
        if array.dtype.kind != "f":
            continue
        if bad := int(np.count_nonzero(~np.isfinite(array.reshape(len(array), -1)).all(axis=1))):
            where = "" if key == ONLY_INPUT else f" of {key!r}"
            raise UnusableData(
                f"The data of {name!r} has NaN or infinite values in {bad} rows{where}: remove or fill them first, "
                "or let the model see them by Recipe(…, missing_values=True)"
            )


def _too_few(rows: Rows) -> str:
    """Why one side of a split has no rows."""
    different = len(np.unique(rows.ids))
    if different == len(rows):
        return "give it more rows"
    return (
        f"only {different} of its {len(rows)} rows differ in what the model sees, and equal rows stay together; "
        "give it a column that tells them apart, split by time or group, or hold out rows of your own"
    )


def without_lone_classes(rows: Rows, held_out: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which rows are held out, with every class among those to train on; the ids tell which ones a model has seen."""
    lone = np.setdiff1d(rows.targets[held_out], rows.targets[~held_out])
    return held_out & ~np.isin(rows.targets, lone)


def _digest(parts: tuple[Rows, ...], *names: object) -> str:
    whole = hashlib.sha256(repr(names).encode())
    for rows in parts:
        whole.update(rows.ids.tobytes())
        whole.update(np.ascontiguousarray(rows.targets).tobytes())
    return whole.hexdigest()
