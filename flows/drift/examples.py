"""The rows of a classify or regress: ``tf.Example`` records, whose features are inputs of the model by their names."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
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
