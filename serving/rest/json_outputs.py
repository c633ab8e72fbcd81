"""
Writes arrays as the values in a JSON answer.

Source: tensorflow_serving/util/json_tensor.cc
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from struct import Struct

import numpy as np

from serving.protocol.errors import InvalidRequest
from serving.protocol.tensors import Array, as_bytes, data_type_of
from serving.protocol.tensors import type_name as tensor_type_name
from serving.rest.json_dialect import array as laid_out_array
from serving.rest.json_dialect import mapping, quoted
from serving.rest.json_types import BOOL, FLOATS, JSON_TYPES, STRING

_MIN_NORMAL = {1: float(np.finfo(np.float32).tiny), 2: float(np.finfo(np.float64).tiny)}
_FEW = 32
_AT_A_TIME = 8192
"""How many floats are written in one go: no other thread runs meanwhile."""
_POWERS = 10.0 ** np.arange(-3, 5)
_SIX_DIGITS = 10.0 ** np.arange(9, 0, -1)
"""By what a float below a power, or beyond all, is multiplied for six digits before the point."""
_FLOAT, _DOUBLE = Struct("f"), Struct("d")


def write_rows(outputs: Mapping[str, Array]) -> str:
    """
    The value of ``predictions``: one element per row.

    Raises:
        InvalidRequest: An output has no rows, or another number of them than the others.
    """
    count: int | None = None
    for name, array in outputs.items():
        if array.ndim == 0:
            raise InvalidRequest(f"Tensor name: {name} has no shape information ")
        if count is None:
            count = len(array)
        elif len(array) != count:
            raise InvalidRequest(f"Tensor name: {name} has inconsistent batch size: {len(array)} expecting: {count}")
    if len(outputs) == 1:
        return _rows(array.shape, value_texts(name, array, 2))
    columns = {
        name: _lay_out(array.shape, value_texts(name, array, 3), 2, single_line=True, rows_only=True)
        for name, array in outputs.items()
    }
    rows = [mapping({name: column[row] for name, column in columns.items()}, 2) for row in range(count or 0)]
    return laid_out_array(rows, 1, single_line=False)


def write_few_rows(array: Array) -> str | None:
    """What `write_rows` gives for the only output, if that is rows of a few single floats; None for any other."""
    if array.dtype != np.float32 or array.ndim == 0 or not 0 < array.size <= _FEW:
        return None
    return _few_rows(array.shape) % tuple(_few_float_texts(array.ravel().tolist(), 1))


def _rows(shape: tuple[int, ...], texts: list[str]) -> str:
    rows = _lay_out(shape, texts, 1, single_line=True, rows_only=True)
    return f"[{', '.join(rows)}\n    ]" if rows else "[]"


@lru_cache
def _few_rows(shape: tuple[int, ...]) -> str:
    """Rows of this shape, with ``%s`` for each value: to lay out a few takes longer than to write them."""
    return _rows(shape, ["%s"] * math.prod(shape))


def write_columns(outputs: Mapping[str, Array]) -> str:
    """
    The value of ``outputs``: one value per output, every element on a line of its own.

    Raises:
        InvalidRequest: The type of an output cannot be written as JSON.
    """
    if len(outputs) == 1:
        ((name, array),) = outputs.items()
        return _column(name, array, 1)
    return mapping({name: _column(name, array, 2) for name, array in outputs.items()}, 1)


def value_texts(name: str, array: Array, level: int) -> list[str]:
    """
    Every value of an array as JSON, in order; strings of outputs named ``…_bytes`` in base64.

    Raises:
        InvalidRequest: Its type cannot be written as JSON.
    """
    data_type = data_type_of(array.dtype)
    if data_type not in JSON_TYPES and array.size:
        raise InvalidRequest(f"Failed to write JSON value for tensor type: {tensor_type_name(data_type)}")
    if data_type in FLOATS:
        return float_texts(array, data_type)
    if data_type == STRING:
        values = [as_bytes(value) for value in array.ravel()]
        if name.endswith("_bytes"):
            return [
                mapping({"b64": f'"{base64.b64encode(value).decode()}"'}, level + array.ndim - 1) for value in values
            ]
        return [quoted(value.decode("utf-8", "surrogateescape")) for value in values]
    if data_type == BOOL:
        return ["true" if value else "false" for value in array.ravel().tolist()]
    return list(map(str, array.ravel().tolist()))


def float_texts(array: Array, data_type: int = 1) -> list[str]:
    """
    Floats in the shortest of ``%g`` and ``%.9g`` (doubles: ``%.17g``) that reads back the same.

    Numbers too small for full precision come back as zero, as in TensorFlow Serving.
    """
    flat = array.reshape(-1)
    if len(flat) > _AT_A_TIME:
        parts = range(0, len(flat), _AT_A_TIME)
        return [text for start in parts for text in float_texts(flat[start : start + _AT_A_TIME], data_type)]
    if data_type == 1 and len(flat) > _FEW:
        return _many_float_texts(flat)
    return _few_float_texts(flat.tolist(), data_type)


def _few_float_texts(values: list[float], data_type: int) -> list[str]:
    size, longer = (_FLOAT, "%.9g") if data_type == 1 else (_DOUBLE, "%.17g")
    pack, unpack = size.pack, size.unpack
    texts = []
    for value in values:
        text = "%g" % value  # noqa: UP031
        if unpack(pack(float(text)))[0] != value:
            text = longer % value
        if "e" in text or "n" in text:
            text = _unusual(value, text, data_type)
        elif "." not in text:
            text += ".0"
        texts.append(text)
    return texts


def _many_float_texts(flat: Array) -> list[str]:
    """
    Single floats that are written without an exponent and with a fraction at once, the others one by one.

    Six digits of such a float are found without an error: it has 24 bits, 10**9 has 21 besides powers of two, and a
    double has room for both. So whether they read back the same is known before anything is written.
    """
    with np.errstate(invalid="ignore"):
        sizes = np.abs(flat.astype(np.float64))
    powers = _SIX_DIGITS[_POWERS.searchsorted(sizes, "right")]
    six_do = (np.rint(sizes * powers) / powers).astype(np.float32) == sizes
    template = " ".join(["%g" if six else "%.9g" for six in six_do.tolist()])
    texts = (template % tuple(flat.tolist())).split()
    others = np.flatnonzero(~((sizes >= 1e-4) & (sizes < 1e5) & (sizes != np.rint(sizes))))
    for position, text in zip(others.tolist(), _few_float_texts(flat[others].tolist(), 1), strict=True):
        texts[position] = text
    return texts


def _unusual(value: float, text: str, data_type: int) -> str:
    """The text of a number with an exponent, or of one that is not finite."""
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "Infinity" if value > 0 else "-Infinity"
    if abs(value) < _MIN_NORMAL[data_type]:
        return "-0.0" if value < 0 else "0.0"
    return text


def _column(name: str, array: Array, level: int) -> str:
    texts = value_texts(name, array, level + 1)
    return texts[0] if array.ndim == 0 else _lay_out(array.shape, texts, level, single_line=False)[0]


def _lay_out(
    shape: Sequence[int], texts: list[str], level: int, single_line: bool, rows_only: bool = False
) -> list[str]:
    """Values put into brackets, dimension by dimension from the last one; the outermost one is left out for rows."""
    for depth in range(len(shape) - 1, 0 if rows_only else -1, -1):
        size = shape[depth]
        count = math.prod(shape[:depth])
        texts = [
            laid_out_array(texts[start * size : (start + 1) * size], level + depth, single_line)
            for start in range(count)
        ]
    return texts
