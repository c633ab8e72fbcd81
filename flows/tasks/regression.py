"""One number or several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from flows.tasks.task import Task, UnusableTargets, check_shape, finite_rows


@dataclass(frozen=True)
class Regression(Task):
    """
    One number or several.

    Targets are float64 [rows, values]; a recipe may give [rows]. Answers are [rows, values], for one value also [rows].
    A row scores minus its absolute error, as a share of how far the targets are from their median in the mean: 0 is
    exact, and the median itself scores -1 in the mean. Of several values, it is the mean.
    """

    name: ClassVar[str] = "regression"
    target_names: tuple[str, ...] = ("value",)

    def __post_init__(self) -> None:
        if not self.target_names:
            raise UnusableTargets("A regression needs the names of its targets")

    @property
    def score_name(self) -> str:
        return "scaled_error"

    @property
    def output_width(self) -> int:
        return len(self.target_names)

    def targets(self, given: Any, model: str) -> NDArray[np.float64]:
        values, width = np.asarray(given), len(self.target_names)
        if values.ndim == 1:
            values = values[:, None]
        if values.ndim != 2 or values.shape[1] != width:
            raise UnusableTargets(f"The targets of {model!r} have shape {list(values.shape)}: expected [rows, {width}]")
        try:
            numbers = values.astype(np.float64)
        except (TypeError, ValueError) as exc:
            raise UnusableTargets(f"The targets of {model!r} are not numbers: {exc}") from exc
        if bad := int(np.count_nonzero(~finite_rows(numbers))):
            raise UnusableTargets(
                f"The targets of {model!r} are NaN or infinite in {bad} rows: remove these rows, or fill them first"
            )
        if constant := [name for name, value in zip(self.target_names, numbers.T, strict=True) if np.ptp(value) == 0]:
            raise UnusableTargets(f"The targets of {model!r} are all the same in {constant}: there is nothing to learn")
        return numbers

    def check_answers(self, targets: NDArray[Any], answers: NDArray[Any]) -> None:
        width = len(self.target_names)
        check_shape(targets, answers, (width,), *([()] if width == 1 else []))

    def scale(self, targets: NDArray[Any]) -> NDArray[np.float64]:
        """Per value the mean distance of the targets from their median; 1 where they are all the same."""
        scale = np.abs(targets - np.median(targets, axis=0)).mean(axis=0)
        return np.where(scale > 0, scale, 1.0)

    def scores(self, targets: NDArray[Any], answers: NDArray[Any]) -> NDArray[np.float64]:
        errors = np.abs(self._values(answers) - targets)
        return np.asarray(-(errors / self.scale(targets)).mean(axis=1))

    def measure(self, targets: NDArray[Any], answers: NDArray[Any]) -> dict[str, float]:
        return self._errors(targets, self._values(answers)) if finite_rows(answers).all() else {}

    def measure_parts(self, targets: NDArray[Any], answers: NDArray[Any]) -> dict[str, float]:
        if len(self.target_names) == 1 or not finite_rows(answers).all():
            return {}
        found: dict[str, float] = {}
        values = self._values(answers)
        for number, each in enumerate(self.target_names):
            one = self._errors(targets[:, [number]], values[:, [number]])
            found |= {f"{metric}_{each}": value for metric, value in one.items()}
        return found

    @staticmethod
    def _errors(targets: NDArray[Any], values: NDArray[np.float64]) -> dict[str, float]:
        from sklearn.metrics import mean_absolute_error, median_absolute_error, r2_score, root_mean_squared_error

        varies = len(targets) > 1 and (np.ptp(targets, axis=0) > 0).all()
        return {
            **({"r2": float(r2_score(targets, values))} if varies else {}),
            "mae": float(mean_absolute_error(targets, values)),
            "rmse": float(root_mean_squared_error(targets, values)),
            "median_absolute_error": float(median_absolute_error(targets, values)),
        }

    def unrelated(self, targets: NDArray[Any], answers: NDArray[Any]) -> float:
        """By Spearman's test of each value; of several the best decides, at a level divided by their number."""
        from scipy.stats import spearmanr

        pairs = [each for each in zip(targets.T, self._values(answers).T, strict=True) if np.ptp(each, axis=1).all()]
        values = [float(spearmanr(*each, alternative="greater").pvalue) for each in pairs if len(targets) > 2]
        return min([1.0, *(value * len(values) for value in values)])

    def same_answer(self, before: NDArray[Any], after: NDArray[Any], targets: NDArray[Any]) -> NDArray[np.bool_]:
        distance = np.abs(self._values(before) - self._values(after))
        return np.asarray((distance <= self.scale(targets)).all(axis=1))

    def _values(self, answers: NDArray[Any]) -> NDArray[np.float64]:
        return answers.reshape(len(answers), -1).astype(np.float64)
