"""The evaluation of a model on held-out rows: what it answers, how often that is right, and on which slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from flows.data.rows import Rows
from flows.tasks import CannotEvaluate
from flows.training.dataset import Dataset

_MAX_VALUES = 10


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What one SavedModel answered on one set of rows."""

    probabilities: NDArray[np.float32]
    """float32 [rows, classes]"""
    predicted: NDArray[np.int64]
    """int64 [rows]: the likeliest class"""
    right: NDArray[np.bool_]
    """bool [rows]: whether that is the true class"""
    confusion: NDArray[np.int64]
    """int64 [classes, classes]: rows by true class, columns by predicted class"""
    log_loss: float
    """mean of -log(probability of the true class), nats"""

    @property
    def accuracy(self) -> float:
        return float(np.trace(self.confusion) / self.confusion.sum())

    @property
    def recall(self) -> NDArray[np.float64]:
        """Per class: of its rows, the share that was recognised."""
        return _share(np.diag(self.confusion), self.confusion.sum(axis=1))

    @property
    def precision(self) -> NDArray[np.float64]:
        """Per class: of the rows taken for it, the share that is of it."""
        return _share(np.diag(self.confusion), self.confusion.sum(axis=0))

    @property
    def macro_f1(self) -> float:
        doubled = 2 * np.diag(self.confusion)
        return float(_share(doubled, self.confusion.sum(axis=0) + self.confusion.sum(axis=1)).mean())

    @property
    def metrics(self) -> dict[str, float]:
        return {
            "test_accuracy": self.accuracy,
            "test_log_loss": self.log_loss,
            "test_macro_f1": self.macro_f1,
            "test_min_recall": float(self.recall.min()),
            "test_rows": float(self.confusion.sum()),
        }


@dataclass(frozen=True, slots=True)
class Slice:
    """Some of the rows, and how many of them are right."""

    by: str
    """``class``, or a feature's name"""
    name: str
    rows: int
    accuracy: float


def evaluate(answers: NDArray[np.float32], rows: Rows, classes: int) -> Evaluation:
    """
    Hold a model's answers to `rows` against the true classes.

    Raises:
        CannotEvaluate: They are not `classes` probabilities for each row.
    """
    if answers.shape != (len(rows), classes):
        raise CannotEvaluate(f"its output has shape {list(answers.shape)}, not {[len(rows), classes]}")
    return compare(answers, rows.targets)


def compare(probabilities: NDArray[np.float32], classes: NDArray[np.int64]) -> Evaluation:
    """Hold class probabilities [rows, classes] against the true classes [rows]."""
    count = probabilities.shape[1]
    predicted = probabilities.argmax(axis=1)
    confusion = np.bincount(classes * count + predicted, minlength=count * count)
    of_truth = probabilities[np.arange(len(classes)), classes].astype(np.float64)
    log_loss = float(-np.log(np.maximum(of_truth, 1e-7)).mean())
    return Evaluation(probabilities, predicted, predicted == classes, confusion.reshape(count, count), log_loss)


def slices(evaluation: Evaluation, dataset: Dataset, columns: Sequence[str]) -> tuple[Slice, ...]:
    """
    The held-out rows by class, and by each of `columns`.

    A column with more than ten values is cut in quarters, at the quartiles of these rows.
    """
    cuts = [("class", dataset.class_names, dataset.test.targets)]
    for column in columns:
        names, groups = _cut(dataset.test_column(column))
        cuts.append((column, names, groups))
    return tuple(each for by, names, groups in cuts for each in _slices(by, names, groups, evaluation.right))


def _slices(by: str, names: Sequence[str], groups: NDArray[np.int64], right: NDArray[np.bool_]) -> list[Slice]:
    rows = np.bincount(groups, minlength=len(names))
    recognised = np.bincount(groups, weights=right, minlength=len(names))
    return [
        Slice(by, name, int(count), float(number / count))
        for name, count, number in zip(names, rows, recognised, strict=True)
        if count
    ]


def _cut(values: NDArray[np.float32]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Names of the groups, and per row the number of its group."""
    distinct, groups = np.unique(values, return_inverse=True)
    if len(distinct) <= _MAX_VALUES:
        return tuple(f"{value:g}" for value in distinct), groups
    edges = np.unique(np.quantile(values, (0.25, 0.5, 0.75)))
    between = [f"{low:g} to {high:g}" for low, high in pairwise(edges)]
    return (f"<= {edges[0]:g}", *between, f"> {edges[-1]:g}"), np.searchsorted(edges, values)


def _share(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    """`part / whole`, and 0 where there is nothing."""
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
