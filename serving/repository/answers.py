"""
Tensors by name: what a model is asked and answers, how far two answers are apart, and how a file keeps them.

A tensor of strings is an object array of `str` where it comes from data, and of `bytes` where a model answered it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tensors = Mapping[str, NDArray[Any]]

ANSWER_TOLERANCE = 1e-5
"""by how much the answers of one model may differ: a batch of another size changes a float's last bits"""
_STRING = "string"
_INEXACT = "fcV"  # V: bfloat16


class OtherAnswer(ValueError):
    """An answer has other outputs, another shape, or other values where only equal ones agree."""


def largest_difference(expected: Tensors, given: Tensors) -> float:
    """
    The largest difference of two answers: absolute up to 1, and relative to the expected value beyond.

    Raises:
        OtherAnswer: An output is missing or has another shape, or strings, integers or booleans differ.
    """
    return max((_difference(name, array, given.get(name)) for name, array in expected.items()), default=0.0)


def encode(tensors: Tensors) -> dict[str, Any]:
    """Tensors as JSON can carry them, with their dtypes."""
    return {name: _encode(np.asarray(array)) for name, array in tensors.items()}


def decode(record: Any, only: str) -> dict[str, NDArray[Any]]:
    """What `encode` made, and the bare list of floats that earlier releases kept of the tensor called `only`."""
    if not isinstance(record, Mapping):
        return {only: np.asarray(record, np.float32)}
    return {name: _decode(each) for name, each in record.items()}


def as_text(value: Any) -> str:
    """A string of either kind as text; bytes that are not UTF-8 survive in it."""
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def _difference(name: str, expected: NDArray[Any], given: NDArray[Any] | None) -> float:
    if given is None:
        raise OtherAnswer(f"it has no output called {name!r}")
    if given.shape != expected.shape:
        rows = len(expected) if expected.ndim else 1
        shapes = f"{list(given.shape)} instead of {list(expected.shape)}"
        raise OtherAnswer(f"{rows} rows are answered by shape {shapes} in {name!r}")
    if expected.dtype.kind in _INEXACT:
        return _float_difference(expected, given)
    same = np.array_equal(_texts(expected), _texts(given)) if expected.dtype == object else (expected == given).all()
    if not same:
        raise OtherAnswer(f"the values of {name!r} differ, which are no floats and must be equal")
    return 0.0


def _float_difference(expected: NDArray[Any], given: NDArray[Any]) -> float:
    wide = np.complex128 if expected.dtype.kind == "c" else np.float64
    before, after = expected.astype(wide), given.astype(wide)
    with np.errstate(invalid="ignore"):
        apart = abs(after - before) / np.maximum(1.0, abs(before))
    apart[(before == after) | (np.isnan(before) & np.isnan(after))] = 0.0
    return float(np.max(apart, initial=0.0))


def _texts(array: NDArray[Any]) -> list[str]:
    return [as_text(each) for each in array.flat]


def _encode(array: NDArray[Any]) -> dict[str, Any]:
    if array.dtype == object:
        texts = np.array(_texts(array), object).reshape(array.shape)
        return {"dtype": _STRING, "shape": list(array.shape), "values": texts.tolist()}
    return {"dtype": array.dtype.name, "shape": list(array.shape), "values": array.tolist()}


def _decode(record: Mapping[str, Any]) -> NDArray[Any]:
    dtype = object if record["dtype"] == _STRING else np.dtype(record["dtype"])
    return np.array(record["values"], dtype).reshape(record["shape"])
