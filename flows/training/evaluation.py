"""How good is an exported SavedModel on rows that it has never seen, and how good is the champion on the same rows?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flows.training.dataset import Dataset, Rows
from flows.training.inspection import Inspection, Signature, describe, inspect, is_dense
from serving.protocol.errors import HotswapError
from serving.protocol.unknown_operations import explained
from serving.repository.stamp import GoldenRows, Stamp

_SIGNATURE = "serving_default"

_CHUNK_ROWS = 1 << 16  # so that memory does not grow with the rows
_MAX_VALUES = 10

Predictor = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Examples float32 [rows, features] to class probabilities float32 [rows, classes]."""


class CannotEvaluate(HotswapError):
    """A SavedModel does not answer these rows with class probabilities."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What one SavedModel answered on one set of rows."""

    probabilities: NDArray[np.float32]
    """float32 [rows, classes]"""
    predicted: NDArray[np.int64]
    """int64 [rows]: the likeliest class"""
    right: NDArray[np.bool_]
    """bool [rows]: is that the true class?"""
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


@dataclass(frozen=True, slots=True)
class GoldenAnswers:
    """The answers to the golden rows of the champion, float32 [rows, classes] each."""

    champion: NDArray[np.float32]
    """the answers that were kept when it was promoted"""
    candidate: NDArray[np.float32] | None
    """the candidate's answers; None where it does not answer these rows"""


@dataclass(frozen=True, slots=True)
class Champion:
    """The version that is live, evaluated now, from its published files."""

    version: int
    inspection: Inspection | None
    """None where its graph cannot be read"""
    evaluation: Evaluation | None
    """None where it does not answer these rows"""
    golden: GoldenAnswers | None = None
    """None where none are kept with it"""
    notes: tuple[str, ...] = ()
    """what makes the comparison impossible, or less certain"""


def evaluate(saved_model: Path, rows: Rows, classes: int) -> Evaluation:
    """
    Run the signature ``serving_default`` of `saved_model` over `rows`, and compare.

    Raises:
        CannotEvaluate: It does not give `classes` probabilities for each row.
    """
    return compare(_answer(load_predictor(saved_model), rows.examples, classes), rows.classes)


def evaluate_champion(path: Path, version: int, stamp: Stamp, candidate: Path, dataset: Dataset) -> Champion:
    """
    Evaluate a published version now, on the held-out rows of `dataset`; what cannot be evaluated is told in its notes.

    Args:
        path: The directory that the server serves.
        version: Its number.
        stamp: What publish wrote about it.
        candidate: The SavedModel that is to answer the champion's golden rows too.
        dataset: The data that the candidate was trained on.
    """
    notes = []
    inspection = evaluation = golden = None
    try:
        inspection = inspect(path)
        predictor = load_predictor(path)
        notes += _differing_golden_rows(predictor, stamp)
        evaluation = compare(_answer(predictor, dataset.test.examples, len(dataset.class_names)), dataset.test.classes)
    except HotswapError as exc:
        notes.append(f"it cannot be evaluated: {exc}")
    if stamp.dataset_digest not in (None, dataset.digest):
        notes.append("it was trained on other data, which may hold some of these rows")
    if stamp.golden is not None:
        golden = _answered_golden_rows(candidate, stamp.golden)
    return Champion(version, inspection, evaluation, golden, tuple(notes))


def load_predictor(saved_model: Path) -> Predictor:
    """
    The signature ``serving_default`` with input ``input`` and output ``output``.

    Raises:
        CannotEvaluate: It cannot be loaded, or has no such signature; the predictor raises the same for rows that it
            cannot answer.
    """
    import tensorflow as tf

    from serving.runtime.op_libraries import load_missing
    from serving.runtime.saved_model import read_meta_graph

    with _translated(saved_model):
        meta_graph = read_meta_graph(saved_model)
        _check_signature(saved_model, describe(meta_graph).get(_SIGNATURE))
        load_missing(meta_graph.graph_def)
        loaded = tf.saved_model.load(str(saved_model))
        signature = loaded.signatures[_SIGNATURE]
        shape = signature.structured_input_signature[1]["input"].shape

    def predict(examples: NDArray[np.float32]) -> NDArray[np.float32]:
        assert loaded is not None  # held here, because TensorFlow frees the variables with it
        if not shape.is_compatible_with(examples.shape):  # which a server checks, and this way of asking does not
            raise CannotEvaluate(f"its input has shape {shape}, which {list(examples.shape)} does not fit")
        chunks = (examples[at : at + _CHUNK_ROWS] for at in range(0, len(examples), _CHUNK_ROWS))
        with _translated(saved_model):
            return np.concatenate([signature(input=tf.constant(chunk))["output"].numpy() for chunk in chunks])

    return predict


def _check_signature(saved_model: Path, signature: Signature | None) -> None:
    """Has it one dense input and a dense output of the names that are asked?"""
    if signature is None:
        has = "has no signature 'serving_default'"
    elif not (is_dense(signature.inputs.get("input", "")) and is_dense(signature.outputs.get("output", ""))):
        has = f"takes {_listed(signature.inputs)} and gives {_listed(signature.outputs)}"
    else:
        return
    raise CannotEvaluate(
        f"{saved_model} {has}: export it with a signature 'serving_default' that takes 'input', a dense tensor of one "
        "row per example, and gives 'output', a dense tensor of the probabilities of the classes"
    )


def _listed(tensors: Mapping[str, str]) -> str:
    return ", ".join(f"{name!r} ({described})" for name, described in tensors.items()) or "nothing"


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
    cuts = [("class", dataset.class_names, dataset.test.classes)]
    for column in columns:
        names, groups = _cut(dataset.test.examples[:, dataset.feature_names.index(column)])
        cuts.append((column, names, groups))
    return tuple(each for by, names, groups in cuts for each in _slices(by, names, groups, evaluation.right))


@contextmanager
def _translated(saved_model: Path) -> Iterator[None]:
    try:
        yield
    except CannotEvaluate:
        raise
    except Exception as exc:  # TensorFlow raises everything from KeyError to errors of its own
        first_line = str(exc).strip().partition("\n")[0][:200]
        raise CannotEvaluate(f"{saved_model} does not answer: {type(exc).__name__}: {explained(first_line)}") from exc


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


def _answer(predictor: Predictor, examples: NDArray[np.float32], classes: int) -> NDArray[np.float32]:
    probabilities = predictor(examples)
    if probabilities.shape != (len(examples), classes):
        raise CannotEvaluate(f"its output has shape {list(probabilities.shape)}, not {[len(examples), classes]}")
    return probabilities


def _differing_golden_rows(predictor: Predictor, stamp: Stamp) -> list[str]:
    if stamp.golden is None or stamp.golden.agree_with(predictor(stamp.golden.inputs)):
        return []
    return ["it answers its golden rows differently from when it was promoted"]


def _answered_golden_rows(candidate: Path, golden: GoldenRows) -> GoldenAnswers:
    try:
        return GoldenAnswers(golden.outputs, load_predictor(candidate)(golden.inputs))
    except CannotEvaluate:
        return GoldenAnswers(golden.outputs, None)


def _share(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    """`part / whole`, and 0 where there is nothing."""
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
