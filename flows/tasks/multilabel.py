"""Several labels at once, each of which a row has or has not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from flows.tasks.probabilities import are_shares, calibration_error, ranking_metrics, unrelated
from flows.tasks.task import Task, UnusableTargets, check_shape

_MIN_PROBABILITY = 1e-7


@dataclass(frozen=True)
class MultiLabel(Task):
    """
    Several labels at once.

    Targets are bool [rows, labels]; a recipe may give 0 and 1. Answers are probabilities [rows, labels], each by
    itself. A row scores the share of its labels that are right.
    """

    name: ClassVar[str] = "multilabel"
    label_names: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.label_names) < 2:
            raise UnusableTargets("A task of several labels needs at least two of them; one label is a classification")

    @property
    def score_name(self) -> str:
        return "label_accuracy"

    @property
    def output_width(self) -> int:
        return len(self.label_names)

    def targets(self, given: Any, model: str) -> NDArray[np.bool_]:
        labels = np.asarray(given)
        if labels.ndim != 2 or labels.shape[1] != len(self.label_names):
            raise UnusableTargets(
                f"The labels of {model!r} have shape {list(labels.shape)}: expected [rows, {len(self.label_names)}]"
            )
        if labels.dtype.kind not in "biuf" or not np.isin(labels, (0, 1)).all():
            raise UnusableTargets(f"The labels of {model!r} must be 0 or 1, or booleans")
        return labels.astype(bool)

    def check_answers(self, targets: NDArray[Any], answers: NDArray[Any]) -> None:
        check_shape(targets, answers, (len(self.label_names),))

    def scores(self, targets: NDArray[Any], answers: NDArray[Any]) -> NDArray[np.float64]:
        return np.asarray(((answers > 0.5) == targets).mean(axis=1))

    def unrelated(self, targets: NDArray[Any], answers: NDArray[Any]) -> float:
        return unrelated(targets, answers)

    def fault(self, answers: NDArray[Any]) -> str:
        if found := super().fault(answers):
            return found
        return "" if are_shares(answers) else "some probabilities are below 0 or above 1: end the model with a sigmoid"

    def measure(self, targets: NDArray[Any], answers: NDArray[Any]) -> dict[str, float]:
        given = answers > 0.5
        _, _, f1, support = self._by_label(targets, given)
        right = given == targets
        found = {"accuracy": float(right.all(axis=1).mean()), "label_accuracy": float(right.mean())}
        if (occurs := (support > 0) | given.any(axis=0)).any():
            found["macro_f1"] = float(f1[occurs].mean())
        return found if self.fault(answers) else found | self._of_probabilities(targets, answers)

    def measure_parts(self, targets: NDArray[Any], answers: NDArray[Any]) -> dict[str, float]:
        precision, recall, _, support = self._by_label(targets, answers > 0.5)
        occur = [(each, number) for number, each in enumerate(self.label_names) if support[number]]
        return {
            **{f"recall_{each}": recall[number] for each, number in occur},
            **{f"precision_{each}": precision[number] for each, number in occur},
        }

    def _by_label(self, targets: NDArray[Any], given: NDArray[np.bool_]) -> tuple[NDArray[Any], ...]:
        """Precision, recall, F1 and rows of each label."""
        from sklearn.metrics import precision_recall_fscore_support

        every = np.arange(len(self.label_names))
        return tuple(precision_recall_fscore_support(targets, given, labels=every, zero_division=0))

    def _of_probabilities(self, targets: NDArray[Any], answers: NDArray[Any]) -> dict[str, float]:
        from sklearn.metrics import brier_score_loss, log_loss

        truth = targets.ravel()
        exact = np.clip(answers.ravel().astype(np.float64), _MIN_PROBABILITY, 1 - _MIN_PROBABILITY)
        return {
            "log_loss": float(log_loss(truth, exact, labels=[False, True])),
            "brier": float(brier_score_loss(truth, exact, labels=[False, True], pos_label=True)),
            "ece": calibration_error(np.maximum(exact, 1 - exact), (exact > 0.5) == truth),
            **ranking_metrics(targets, answers),
        }

    def same_answer(self, before: NDArray[Any], after: NDArray[Any], targets: NDArray[Any]) -> NDArray[np.bool_]:
        return np.asarray(((before > 0.5) == (after > 0.5)).all(axis=1))

    def described(self, answer: NDArray[Any]) -> str:
        return "labels " + (", ".join(np.array(self.label_names)[answer > 0.5].tolist()) or "none")
