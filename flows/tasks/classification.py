"""One of several classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from flows.tasks.probabilities import (
    SUM_TOLERANCE,
    are_shares,
    calibration_error,
    placements,
    ranking_metrics,
    unrelated,
)
from flows.tasks.task import Task, UnusableTargets, check_shape, finite_rows

_MIN_PROBABILITY = 1e-7  # what a float32 next to 1 leaves; the log of 0 is infinite


@dataclass(frozen=True)
class Classification(Task):
    """
    One of several classes.

    Targets are int64 [rows], counted from 0 in the order of the names; a recipe may give the names themselves. Answers
    are probabilities [rows, classes], or for two classes one sigmoid, [rows, 1] or [rows]: the probability of the
    second.
    """

    name: ClassVar[str] = "classification"
    class_names: tuple[str, ...]
    positive: str | None = None
    """the class that precision, recall, F1 and the area under the precision-recall curve are about; None: of two
    classes the second, of more none"""
    score: Literal["accuracy", "roc_auc", "log_loss", "brier"] = "accuracy"
    """what models are compared by: rows that are right, the rank of a row's true class among all rows (its mean is the
    area under the ROC curve, for rare classes), or the loss of its probability"""

    def __post_init__(self) -> None:
        if len(self.class_names) < 2:
            raise UnusableTargets("A classification needs at least two class names")
        if self.positive is not None and self.positive not in self.class_names:
            raise UnusableTargets(f"There is no class {self.positive!r} among {list(self.class_names)}")

    @property
    def is_share(self) -> bool:  # type: ignore[override]
        return self.score == "accuracy"

    @property
    def score_name(self) -> str:
        return self.score

    @property
    def output_width(self) -> int:
        return len(self.class_names)

    @property
    def positive_class(self) -> int | None:
        """The number of the class that is looked for."""
        if self.positive is not None:
            return self.class_names.index(self.positive)
        return 1 if len(self.class_names) == 2 else None

    def targets(self, given: Any, model: str) -> NDArray[np.int64]:
        classes = self._numbered(np.asarray(given))
        last = len(self.class_names) - 1
        if classes.ndim != 1 or classes.dtype.kind not in "iu" or classes.min() < 0 or classes.max() > last:
            raise UnusableTargets(f"The classes of {model!r} must be integers from 0 to {last}, or the class names")
        counts = np.bincount(classes.astype(np.int64), minlength=last + 1)
        if np.count_nonzero(counts) < 2:
            raise UnusableTargets(f"The data of {model!r} has one class only: a classifier needs at least two")
        if scarce := [self.class_names[i] for i in np.flatnonzero(counts < 2)]:
            raise UnusableTargets(
                f"The data of {model!r} needs at least two rows of each class, and has too few of {scarce}"
            )
        return classes.astype(np.int64)

    def _numbered(self, given: NDArray[Any]) -> NDArray[Any]:
        """Integers as they are, booleans as 0 and 1, and class names as their numbers."""
        if given.dtype.kind == "b":
            return given.astype(np.int64)
        if given.ndim != 1 or not given.size or given.dtype.kind not in "OUT":
            return given
        numbers = {name: number for number, name in enumerate(self.class_names)}
        return np.array([numbers.get(str(each), -1) for each in given.tolist()], np.int64)

    def check_answers(self, targets: NDArray[Any], answers: NDArray[Any]) -> None:
        width = len(self.class_names)
        check_shape(targets, answers, (width,), *([(1,), ()] if width == 2 else []))

    def probabilities(self, answers: NDArray[Any]) -> NDArray[np.floating]:
        """[rows, classes], also of one sigmoid."""
        if answers.ndim == 2 and answers.shape[1] == len(self.class_names):
            return answers
        second = answers.reshape(-1)
        return np.stack([1 - second, second], axis=1)

    def predicted(self, answers: NDArray[Any]) -> NDArray[np.int64]:
        """The likeliest class of each row, int64 [rows]."""
        return np.asarray(self.probabilities(answers).argmax(axis=1))

    def confusion(self, targets: NDArray[Any], answers: NDArray[Any]) -> NDArray[np.int64]:
        """int64 [classes, classes]: rows by true class, columns by predicted class."""
        count = len(self.class_names)
        pairs = np.bincount(targets * count + self.predicted(answers), minlength=count * count)
        return np.asarray(pairs.reshape(count, count), np.int64)

    def scores(self, targets: NDArray[Any], answers: NDArray[Any]) -> NDArray[np.float64]:
        if self.score == "accuracy":
            return np.asarray(self.predicted(answers) == targets, np.float64)
        probabilities = self.probabilities(answers)
        if self.score == "roc_auc":
            return self.ranks(targets, answers)
        if self.score == "brier":
            truth = np.eye(len(self.class_names), dtype=np.float32)[targets]
            return np.asarray(-np.square(probabilities - truth).sum(axis=1, dtype=np.float64) / 2)
        of_truth = probabilities[np.arange(len(targets)), targets].astype(np.float64)
        return np.asarray(np.log(np.clip(of_truth, _MIN_PROBABILITY, 1)))

    def ranks(self, targets: NDArray[Any], answers: NDArray[Any]) -> NDArray[np.float64]:
        """Per row its part of the area under the ROC curve, the mean over the classes that occur."""
        probabilities = self.probabilities(answers)
        present = np.unique(targets)
        if len(present) < 2:
            return np.full(len(targets), 0.5)
        if len(self.class_names) == 2:
            return placements(targets == 1, probabilities[:, 1])
        return np.asarray(np.mean([placements(targets == each, probabilities[:, each]) for each in present], axis=0))

    def unrelated(self, targets: NDArray[Any], answers: NDArray[Any]) -> float:
        columns = [1] if len(self.class_names) == 2 else range(len(self.class_names))
        truth = targets[:, None] == np.array(columns)
        return unrelated(truth, self.probabilities(answers)[:, columns])

    def fault(self, answers: NDArray[Any]) -> str:
        if found := super().fault(answers):
            return found
        probabilities = self.probabilities(answers)
        off = np.abs(probabilities.sum(axis=1, dtype=np.float64) - 1)
        if bad := int(np.count_nonzero(off > SUM_TOLERANCE)):
            return f"the probabilities of {bad} of {len(answers)} rows do not sum to 1: end the model with a softmax"
        if not are_shares(probabilities):
            return "some probabilities are below 0 or above 1: end the model with a sigmoid or a softmax"
        return ""

    def measure(self, targets: NDArray[Any], answers: NDArray[Any]) -> dict[str, float]:
        probabilities = self.probabilities(answers)
        predicted = self.predicted(answers)
        found = self._of_classes(targets, predicted)
        if not self.fault(answers):
            found |= self._of_probabilities(targets, probabilities, predicted)
        elif finite_rows(answers).all():
            found |= self._rankings(targets, probabilities)
        return found

    def measure_parts(self, targets: NDArray[Any], answers: NDArray[Any]) -> dict[str, float]:
        precision, recall, _, support = self._by_class(targets, self.predicted(answers))
        occur = [(each, number) for number, each in enumerate(self.class_names) if support[number]]
        return {
            **{f"recall_{each}": recall[number] for each, number in occur},
            **{f"precision_{each}": precision[number] for each, number in occur},
        }

    def _by_class(self, targets: NDArray[Any], predicted: NDArray[np.int64]) -> tuple[NDArray[Any], ...]:
        """Precision, recall, F1 and rows of each class."""
        from sklearn.metrics import precision_recall_fscore_support

        every = np.arange(len(self.class_names))
        return tuple(precision_recall_fscore_support(targets, predicted, labels=every, zero_division=0))

    def _of_classes(self, targets: NDArray[Any], predicted: NDArray[np.int64]) -> dict[str, float]:
        precision, recall, f1, support = self._by_class(targets, predicted)
        has_rows, occurs = support > 0, (support > 0) | np.isin(np.arange(len(support)), predicted)
        found = {
            "accuracy": float((predicted == targets).mean()),
            "balanced_accuracy": float(recall[has_rows].mean()),
            "macro_f1": float(f1[occurs].mean()),
            "min_recall": float(recall[has_rows].min()),
        }
        if (positive := self.positive_class) is not None and has_rows[positive]:
            found |= {"recall": recall[positive], "precision": precision[positive], "f1": f1[positive]}
        return found

    def _of_probabilities(
        self, targets: NDArray[Any], probabilities: NDArray[np.floating], predicted: NDArray[np.int64]
    ) -> dict[str, float]:
        from sklearn.metrics import brier_score_loss, log_loss

        every = np.arange(len(self.class_names))
        exact = np.clip(probabilities.astype(np.float64), _MIN_PROBABILITY, 1)
        exact /= exact.sum(axis=1, keepdims=True)
        return {
            "log_loss": float(log_loss(targets, exact, labels=every)),
            "brier": float(brier_score_loss(targets, exact, labels=every, scale_by_half=True)),
            "ece": calibration_error(probabilities.max(axis=1), predicted == targets),
            **self._rankings(targets, probabilities),
        }

    def _rankings(self, targets: NDArray[Any], probabilities: NDArray[np.floating]) -> dict[str, float]:
        truth = targets[:, None] == np.arange(len(self.class_names))
        if (positive := self.positive_class) is not None:
            truth, probabilities = truth[:, [positive]], probabilities[:, [positive]]
        return ranking_metrics(truth, probabilities)

    def same_answer(self, before: NDArray[Any], after: NDArray[Any], targets: NDArray[Any]) -> NDArray[np.bool_]:
        return np.asarray(self.predicted(before) == self.predicted(after))

    def described(self, answer: NDArray[Any]) -> str:
        return f"class {int(self.predicted(answer[None])[0])}"
