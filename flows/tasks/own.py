"""A task of a recipe's own, by the score of a row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from flows.tasks.task import CannotEvaluate, Task, UnusableTargets, checked_scores, finite_rows
from flows.user_code import of_recipe


@dataclass(frozen=True)
class OwnTask(Task):
    """
    A task of a recipe's own.

    Targets and answers may have any form, a row in each. `score` gets both, and gives float [rows], larger is
    better.
    """

    name: ClassVar[str] = "own"
    score: Callable[[NDArray[Any], NDArray[Any]], Any] = field(repr=False)

    @property
    def score_name(self) -> str:
        return "score"

    @property
    def output_width(self) -> None:
        return None

    def targets(self, given: Any, model: str) -> NDArray[Any]:
        targets = np.asarray(given)
        if targets.ndim == 0 or not targets.size:
            raise UnusableTargets(f"The targets of {model!r} have no rows: check what its load() returns")
        return targets

    def check_answers(self, targets: NDArray[Any], answers: NDArray[Any]) -> None:
        if answers.ndim == 0 or len(answers) != len(targets):
            raise CannotEvaluate(f"its output has shape {list(answers.shape)} for {len(targets)} rows")

    def scores(self, targets: NDArray[Any], answers: NDArray[Any]) -> NDArray[np.float64]:
        if not finite_rows(answers).all():
            return np.full(len(targets), np.nan)
        with of_recipe("The score of the task cannot be computed"):
            return checked_scores(self.score(targets, answers), len(targets))

    def measure(self, targets: NDArray[Any], answers: NDArray[Any]) -> dict[str, float]:
        return {"score": float(self.scores(targets, answers).mean())}

    def margin_unit(self, scores: NDArray[np.float64]) -> float:
        """The mean distance of the scores from their median, as nothing else is known of their scale."""
        return float(np.abs(scores - np.median(scores)).mean()) or 1.0

    def same_answer(self, before: NDArray[Any], after: NDArray[Any], targets: NDArray[Any]) -> NDArray[np.bool_]:
        """What an answer means is up to the recipe, so any that is a number is taken for the same."""
        return finite_rows(after)
