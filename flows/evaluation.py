"""How good is an exported SavedModel on rows that it has never seen?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flows.dataset import Rows


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What one SavedModel answered on one set of rows."""

    probabilities: NDArray[np.float32]
    """float32 [rows, classes]"""
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


def evaluate(saved_model: Path, rows: Rows) -> Evaluation:
    """Run the signature ``serving_default`` of `saved_model` over all `rows` at once, and compare."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(saved_model))
    outputs = loaded.signatures["serving_default"](input=tf.constant(rows.examples))
    return compare(outputs["output"].numpy(), rows.classes)


def compare(probabilities: NDArray[np.float32], classes: NDArray[np.int64]) -> Evaluation:
    """Hold class probabilities [rows, classes] against the true classes [rows]."""
    count = probabilities.shape[1]
    confusion = np.bincount(classes * count + probabilities.argmax(axis=1), minlength=count * count)
    of_truth = probabilities[np.arange(len(classes)), classes].astype(np.float64)
    log_loss = float(-np.log(np.maximum(of_truth, 1e-7)).mean())
    return Evaluation(probabilities, confusion.reshape(count, count), log_loss)


def _share(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    """`part / whole`, and 0 where there is nothing."""
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
