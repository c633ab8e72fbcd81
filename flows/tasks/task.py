"""
A task, and the evaluation of a model by it.

Each row has a score, larger is better, by which models are compared row by row; metrics describe all rows together. A
metric that these rows do not define, such as the area under a curve where all rows are of one class, is left out.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from flows.user_code import RecipeFailed, of_recipe
from serving.protocol.errors import HotswapError

Metric = Callable[[NDArray[Any], NDArray[Any]], float]
"""Targets and answers, [rows, …] each, to one number."""


class UnusableTargets(HotswapError):
    """A model cannot be trained towards these targets."""


class CannotEvaluate(HotswapError):
    """A model does not answer these rows in the form that the task asks for."""


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """What one model answered to a set of rows, and how good that is."""

    task: Task
    targets: NDArray[Any]
    """[rows, …], as `Task.targets` gives them"""
    answers: NDArray[Any]
    """[rows, …], as the model gave them"""
    scores: NDArray[np.float64]
    """float64 [rows], larger is better"""
    metrics: Mapping[str, float]
    """of all rows, by the names that scikit-learn has for them; the first says most"""
    parts: Mapping[str, float] = field(default_factory=dict)
    """of each class, label or value, such as ``recall_setosa``"""

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def score(self) -> float:
        """Mean score of the rows."""
        return float(self.scores.mean())

    @property
    def recorded(self) -> dict[str, float]:
        """The metrics of all rows, and how many these are, by the names that records have for them."""
        return {**{f"test_{name}": value for name, value in self.metrics.items()}, "test_rows": float(len(self))}

    def of(self, rows: NDArray[np.bool_]) -> Evaluation:
        """Some of the rows with their scores, to compare them; without metrics."""
        targets, answers = self.targets[rows], self.answers[rows]
        return Evaluation(self.task, targets, answers, self.task.scores(targets, answers), {})


@dataclass(frozen=True)
class Task(ABC):
    """The kind of a problem: what targets and answers look like, and what makes an answer good."""

    name: ClassVar[str]
    is_share: ClassVar[bool] = False
    """whether the score of a row is 0 or 1, so that its mean is a share of the rows"""
    metrics: Mapping[str, Metric] = field(default_factory=dict, kw_only=True, repr=False, hash=False)
    """metrics of the recipe's own, by name"""

    @property
    @abstractmethod
    def score_name(self) -> str:
        """What the mean score of all rows is called."""

    @property
    @abstractmethod
    def output_width(self) -> int | None:
        """How many values a row is answered by; None where that is up to the model."""

    @abstractmethod
    def targets(self, given: Any, model: str) -> NDArray[Any]:
        """
        The targets of the recipe of `model`, checked and cast, [rows, …].

        Raises:
            UnusableTargets: They do not fit the task; the message says what would.
        """

    @abstractmethod
    def check_answers(self, targets: NDArray[Any], answers: NDArray[Any]) -> None:
        """
        See that there is an answer of the right form for each target.

        Raises:
            CannotEvaluate: There is none; the message has both shapes.
        """

    @abstractmethod
    def scores(self, targets: NDArray[Any], answers: NDArray[Any]) -> NDArray[np.float64]:
        """Score of each row, larger is better."""

    @abstractmethod
    def measure(self, targets: NDArray[Any], answers: NDArray[Any]) -> dict[str, float]:
        """The task's metrics, that which says most first; one that is not defined may be NaN."""

    def measure_parts(self, targets: NDArray[Any], answers: NDArray[Any]) -> dict[str, float]:
        """Metrics of each class, label or value."""
        return {}

    @abstractmethod
    def same_answer(self, before: NDArray[Any], after: NDArray[Any], targets: NDArray[Any]) -> NDArray[np.bool_]:
        """
        Whether the answers of two versions to a row are the same to a client.

        Args:
            before: Answers [rows, …] of the one.
            after: Answers of the other, of the same shape.
            targets: Held-out targets, which tell how far values are apart.
        """

    def unrelated(self, targets: NDArray[Any], answers: NDArray[Any]) -> float:
        """The p-value, by ranks, of answers that have nothing to do with the targets; 1 where there is no test."""
        return 1.0

    def fault(self, answers: NDArray[Any]) -> str:
        """What is wrong with answers of the right shape; empty where nothing is."""
        bad = int(np.count_nonzero(~finite_rows(answers)))
        return f"{bad} of {len(answers)} rows are answered by NaN or infinite values" if bad else ""

    def margin_unit(self, scores: NDArray[np.float64]) -> float:
        """What a difference of 1 between mean scores is counted in, given the scores of the rows."""
        return 1.0

    def described(self, answer: NDArray[Any]) -> str:
        """One row's answer in few words."""
        return ", ".join(
            f"{value:.4g}" if isinstance(value, float) else str(value) for value in answer.ravel().tolist()
        )

    def evaluate(self, targets: NDArray[Any], answers: NDArray[Any]) -> Evaluation:
        """
        Hold answers against targets.

        Raises:
            CannotEvaluate: The answers have another shape than the task asks for.
            RecipeFailed: The recipe's own score or metric failed.
        """
        if len(targets) == 0:
            raise CannotEvaluate("there are no rows to evaluate it on")
        self.check_answers(targets, answers)
        measured = _defined({**self.measure(targets, answers), **self._own_metrics(targets, answers)})
        parts = _defined(self.measure_parts(targets, answers))
        return Evaluation(self, targets, answers, self.scores(targets, answers), measured, parts)

    def _own_metrics(self, targets: NDArray[Any], answers: NDArray[Any]) -> dict[str, float]:
        found = {}
        for name, metric in self.metrics.items():
            with of_recipe(f"The metric {name!r} cannot be computed"):
                found[name] = float(metric(targets, answers))
        return found


def _defined(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}


def checked_scores(scores: Any, rows: int) -> NDArray[np.float64]:
    """
    The scores that a recipe's own function gave.

    Raises:
        RecipeFailed: They are not one finite number a row.
    """
    given = np.asarray(scores, np.float64)
    if given.shape != (rows,):
        raise RecipeFailed(f"The score of the task gives shape {list(given.shape)}, and has to give one number a row")
    if not np.isfinite(given).all():
        raise RecipeFailed("The score of the task gives NaN or infinite values: give each row a number")
    return given


def finite_rows(answers: NDArray[Any]) -> NDArray[np.bool_]:
    """Which rows have no NaN and nothing infinite; answers that are not numbers have none."""
    if answers.dtype.kind not in "fc":
        return np.ones(len(answers), bool)
    return np.asarray(np.isfinite(answers.reshape(len(answers), -1)).all(axis=1))


def check_shape(targets: NDArray[Any], answers: NDArray[Any], *widths: tuple[int, ...]) -> None:
    """
    See that the answers are [rows] followed by one of `widths`.

    Raises:
        CannotEvaluate: They are not, or not numbers.
    """
    expected = [[len(targets), *width] for width in widths]
    if list(answers.shape) not in expected:
        raise CannotEvaluate(f"its output has shape {list(answers.shape)}, not {' or '.join(map(str, expected))}")
    if answers.dtype.kind not in "fiub":
        raise CannotEvaluate(f"its output is {answers.dtype}, and has to be numbers")
