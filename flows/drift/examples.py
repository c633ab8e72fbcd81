"""
The rows of a classify or regress, and the answers to them.

The rows are ``tf.Example`` records, whose features are inputs of the model by their names. The answers are put into the
form that a predict has them in.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_DTYPES = {"float_list": np.float32, "int64_list": np.int64, "bytes_list": object}


def inputs_of(given: Any, names: Collection[str]) -> dict[str, NDArray[Any]]:
    """
    The features of these names.

    Args:
        given: A ``tensorflow.serving.Input``.
        names: What the model takes; other features are left out.

    Returns:
        Float32, int64 or bytes, [rows] of one value a row, else [rows, values]. What a row lacks is NaN, or empty.

    Raises:
        ValueError: Rows have different numbers or kinds of values.
    """
    rows = list(_rows(given))
    there = {name for row in rows for name in row}
    return {name: _column([row.get(name) for row in rows]) for name in names if name in there}


def answers_of(results: Iterable[Any], class_names: Sequence[str]) -> NDArray[np.float32] | None:
    """
    What was answered, as a predict would have.

    Args:
        results: ``tensorflow.serving.ClassificationResult`` or ``RegressionResult``.
        class_names: Of the model; none of one that answers values.

    Returns:
        Scores [rows, classes] in the order of the names, 0 where a row does not name a class, or values [rows]; of
        the first result that has them, or None.
    """
    for result in results:
        if class_names and result.DESCRIPTOR.name == "ClassificationResult":
            return _scores(result, class_names)
        if not class_names and result.DESCRIPTOR.name == "RegressionResult":
            values = [each.value for each in result.regressions]
            return np.array(values, np.float32) if values else None
    return None


def _scores(result: Any, class_names: Sequence[str]) -> NDArray[np.float32] | None:
    """By the labels, which are in any order; without labels as they are. None where they are of other classes."""
    rows = [each.classes for each in result.classifications]
    if not any(each.label for row in rows for each in row):
        alike = len({len(row) for row in rows}) == 1
        return np.array([[each.score for each in row] for row in rows], np.float32) if alike else None
    named = [{each.label: each.score for each in row} for row in rows]
    if any(row.keys() - set(class_names) for row in named):
        return None
    return np.array([[row.get(name, 0.0) for name in class_names] for row in named], np.float32)


def _rows(given: Any) -> Iterator[Mapping[str, NDArray[Any]]]:
    """By feature, the values of each example; what the context says counts for all that do not say it themselves."""
    listed = given.example_list_with_context
    context = _values(listed.context)
    for example in (*given.example_list.examples, *listed.examples):
        yield {**context, **_values(example)}


def _values(example: Any) -> dict[str, NDArray[Any]]:
    kinds = {name: (each, each.WhichOneof("kind")) for name, each in example.features.feature.items()}
    found = {name: getattr(each, kind).value for name, (each, kind) in kinds.items() if kind}
    return {name: np.array(list(values), _DTYPES[kinds[name][1]]) for name, values in found.items() if values}


def _column(values: Sequence[NDArray[Any] | None]) -> NDArray[Any]:
    known = [each for each in values if each is not None]
    if len({(each.shape, each.dtype == object) for each in known}) > 1:
        raise ValueError("rows of different lengths or kinds")
    missing = np.full_like(known[0], b"") if known[0].dtype == object else np.full(known[0].shape, np.nan, np.float32)
    stacked = np.stack([missing if each is None else each for each in values])
    return stacked[:, 0] if stacked.shape[1] == 1 else stacked
