"""
How do the values in a JSON request become arrays, and arrays values in an answer?

Requests in row form (``instances``) have one element per row, in column form (``inputs``) one value per input. What
numpy takes as it is goes the fast way; anything else is read value by value, with TensorFlow Serving's errors. Shapes
come from the values alone; they are not compared with the signature.

Source: tensorflow_serving/util/json_tensor.cc
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from struct import Struct
from typing import Any

import numpy as np

from serving.protocol.errors import InvalidRequest, ServingError, Unsupported
from serving.protocol.signature import Signature, TensorInfo
from serving.protocol.tensors import MAX_DIMENSIONS, Array, as_bytes, data_type_of, dtype_of, shaped
from serving.protocol.tensors import type_name as tensor_type_name
from serving.rest.json_dialect import array as laid_out_array
from serving.rest.json_dialect import dump, mapping, members, quoted, type_name
from serving.runtime.requested import unreadable

_FLOATS = {1, 2}
_INTEGERS = {
    # type -> lowest and highest number that is read; smaller types wrap
    3: (-(2**31), 2**31 - 1),
    4: (-(2**31), 2**31 - 1),
    5: (-(2**31), 2**31 - 1),
    6: (-(2**31), 2**31 - 1),
    9: (-(2**63), 2**63 - 1),
    22: (0, 2**32 - 1),
    23: (0, 2**64 - 1),
}
_STRING, _BOOL, _UINT64 = 7, 10, 23
_WRITABLE = {1, 2, 3, 4, 5, 6, _STRING, 9, _BOOL, 22, 23}
_MIN_NORMAL = {1: float(np.finfo(np.float32).tiny), 2: float(np.finfo(np.float64).tiny)}
_FEW = 32
_AT_A_TIME = 8192
"""How many floats are written in one go: no other thread runs meanwhile."""
_POWERS = 10.0 ** np.arange(-3, 5)
_SIX_DIGITS = 10.0 ** np.arange(9, 0, -1)
"""By what a float below a power, or beyond all, is multiplied for six digits before the point."""
_FLOAT, _DOUBLE = Struct("f"), Struct("d")
_BASE64 = re.compile(r"([A-Za-z0-9+/]*)([=.]*)")
_WHITE_SPACE = re.compile(r"[ \t\n\v\f\r]")


_Quick = Callable[[Any, int], Array | None]


def read_inputs(body: Mapping[str, Any], signature: Signature, has_bools: bool) -> tuple[dict[str, Array], bool]:
    """
    The arrays of a predict request, and whether it is in row form.

    Args:
        body: The request.
        signature: What it asks for.
        has_bools: Whether there may be ``true`` or ``false`` in it: numpy would take them for numbers.

    Raises:
        InvalidRequest: A value cannot be read as the type of its input.
        Unsupported: The type of an input cannot come from JSON.
    """
    if not signature.inputs:
        raise InvalidRequest(f"Failed to get input map for signature: {body.get('signature_name') or 'DEFAULT'}")
    if "instances" in body and "inputs" in body:
        raise InvalidRequest(
            f"JSON Value: {dump(body)} Not formatted correctly expecting only one of 'inputs' or 'instances' keys to "
            "exist "
        )
    quick = _read_nothing_quickly if has_bools else _read_quickly
    if "instances" in body:
        return _read_rows(body, signature.inputs, quick), True
    if "inputs" in body:
        return _read_columns(body["inputs"], signature.inputs, quick), False
    raise InvalidRequest("Missing 'inputs' or 'instances' key")


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
    if data_type not in _WRITABLE and array.size:
        raise InvalidRequest(f"Failed to write JSON value for tensor type: {tensor_type_name(data_type)}")
    if data_type in _FLOATS:
        return float_texts(array, data_type)
    if data_type == _STRING:
        values = [as_bytes(value) for value in array.ravel()]
        if name.endswith("_bytes"):
            return [
                mapping({"b64": f'"{base64.b64encode(value).decode()}"'}, level + array.ndim - 1) for value in values
            ]
        return [quoted(value.decode("utf-8", "surrogateescape")) for value in values]
    if data_type == _BOOL:
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


def _read_rows(body: Mapping[str, Any], infos: Mapping[str, TensorInfo], quick: _Quick) -> dict[str, Array]:
    rows = body["instances"]
    if not isinstance(rows, list):
        raise InvalidRequest(f"JSON Value: {dump(body)} Expecting 'instances' to be an list/array")
    if not rows:
        raise InvalidRequest(f"JSON Value: {dump(body)} No values in 'instances' array")
    if not isinstance(rows[0], dict) and len(infos) > 1:
        raise InvalidRequest(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
            "tensorinfo_map"
        )
    if not _is_named(rows[0]):
        name, info = next(iter(infos.items()))
        array = quick(rows, info.data_type)
        return {name: array if array is not None else _read_plain_rows(rows, name, info.data_type)}
    if all(type(row) is dict and row.keys() == infos.keys() for row in rows):
        arrays = {name: quick([row[name] for row in rows], info.data_type) for name, info in infos.items()}
        if all(array is not None for array in arrays.values()):
            return {name: array for name, array in arrays.items() if array is not None}
    return _read_named_rows(rows, infos)


def _read_plain_rows(rows: Sequence[Any], name: str, data_type: int) -> Array:
    column = _Column(name, data_type)
    for position, row in enumerate(rows):
        if _is_named(row):
            raise InvalidRequest(f"Expecting value/list but got object at item {position} of input list")
        try:
            column.add(row)
        except ServingError as exc:
            raise InvalidRequest(
                f"Failed to process element: {position} of 'instances' list. Error: {exc.code.name}: {exc}"
            ) from exc
    found: Array = column.array(len(rows))
    return found


def _read_named_rows(rows: Sequence[Any], infos: Mapping[str, TensorInfo]) -> dict[str, Array]:
    columns = {name: _Column(name, info.data_type) for name, info in infos.items()}
    for position, row in enumerate(rows):
        if not _is_named(row):
            raise InvalidRequest(f"Expecting object but got list at item {position} of input list")
        for key, value in members(row):
            try:
                if key not in columns:
                    raise InvalidRequest(f"JSON object: does not have named input: {key}")
                columns[key].add(value)
            except ServingError as exc:
                raise InvalidRequest(
                    f"Failed to process element: {position} key: {key} of 'instances' list. "
                    f"Error: {exc.code.name}: {exc}"
                ) from exc
        if row.keys() != infos.keys():
            raise InvalidRequest(
                f"Failed to process element: {position} of 'instances' list. "
                f"JSON object: {dump(row)} keys must be equal to: {','.join(sorted(infos))}"
            )
    return {name: column.array(len(rows)) for name, column in columns.items()}


def _read_columns(value: Any, infos: Mapping[str, TensorInfo], quick: _Quick) -> dict[str, Array]:
    if not _is_named(value):
        if len(infos) > 1:
            raise InvalidRequest(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
                "tensorinfo_map"
            )
        ((name, info),) = infos.items()
        return {name: _read_value(value, name, info.data_type, quick)}
    arrays = {}
    for name, info in infos.items():
        if name not in value:
            raise InvalidRequest(f"Missing named input: {name} in 'inputs' object.")
        arrays[name] = _read_value(value[name], name, info.data_type, quick)
    return arrays


def _read_value(value: Any, name: str, data_type: int, quick: _Quick) -> Array:
    array = quick(value, data_type)
    if array is not None:
        return array
    column = _Column(name, data_type)
    column.add(value)
    found: Array = column.array()
    return found


def _read_nothing_quickly(value: Any, data_type: int) -> None:
    """What stands in for `_read_quickly` where every value must be looked at."""


def _read_quickly(value: Any, data_type: int) -> Array | None:
    """The array, if numpy reads this value as the type it should have; None where it must be looked at closely."""
    try:
        array = np.array(value)
    except (ValueError, OverflowError):
        return None
    dtype = dtype_of(data_type)
    if data_type in _FLOATS and array.dtype.kind in "iu":
        array = array.astype(np.float64)  # in TensorFlow Serving every number is a double before it is a float
    if data_type in _FLOATS and array.dtype.kind == "f":
        return array.astype(dtype, copy=False)
    if data_type in _INTEGERS and (array.dtype.kind == "i" or not array.size):
        lowest, highest = _INTEGERS[data_type]
        if not array.size or (lowest <= array.min() and array.max() <= highest):
            return array.astype(dtype, copy=False)
    return None


class _Column:
    """The values of one input, read one by one."""

    def __init__(self, name: str, data_type: int) -> None:
        self._name = name
        self._data_type = data_type
        self._values: list[Any] = []
        self._shape: tuple[int, ...] | None = None

    def add(self, value: Any) -> None:
        """
        Read one element, which must have the shape of the first one.

        Raises:
            InvalidRequest: It cannot be read as the type of the input, or has another shape.
            Unsupported: The type cannot come from JSON.
        """
        shape = _shape(value)
        before = len(self._values)
        if len(shape) <= MAX_DIMENSIONS:
            self._fill(value, 0, shape)
        size = len(self._values) - before
        if self._shape is None:
            self._shape, self._size = shape, size
        elif size != self._size:
            raise InvalidRequest(f"Expecting tensor size: {self._size} but got: {size}")
        elif shape != self._shape:
            raise InvalidRequest(f"Expecting shape {_bracketed(self._shape)} but got: {_bracketed(shape)}")

    def array(self, *rows: int) -> Any:
        """
        All elements, with `rows` as the first dimension.

        A key that stands in a row more than once gave more values than there is room for; the last ones are left out.

        Raises:
            InvalidRequest: It has more dimensions than a tensor.
        """
        shape = (*rows, *(self._shape or ()))
        values = self._values[: math.prod(shape)]
        dtype = dtype_of(self._data_type)
        if dtype is None:
            raise InvalidRequest(f"tensor parsing error: {self._name}")
        if self._data_type == _STRING:
            array = np.empty(len(values), object)
            array[:] = values
        elif self._data_type in _INTEGERS and self._data_type != _UINT64:
            array = np.array(values, np.int64).astype(dtype)
        else:
            with np.errstate(over="ignore"):
                array = np.array(values, np.float64 if self._data_type in _FLOATS else dtype).astype(dtype)
        try:
            return shaped(array, shape)
        except ValueError as exc:
            raise unreadable(self._name, exc) from exc

    def _fill(self, value: Any, level: int, shape: tuple[int, ...]) -> None:
        if not isinstance(value, list):
            if level != len(shape):
                raise InvalidRequest(
                    f"JSON Value: {dump(value)} found at incorrect level: {level + 1} in the JSON DOM. "
                    f"Expected at level: {len(shape)}"
                )
            self._values.append(_scalar(value, self._data_type))
            return
        if level >= len(shape):
            raise InvalidRequest(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
        if len(value) != shape[level]:
            raise InvalidRequest(
                f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}"
            )
        for each in value:
            self._fill(each, level + 1, shape)


def _scalar(value: Any, data_type: int) -> Any:
    """One value as the type of its input."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if data_type in _FLOATS and is_number:
        return value
    if data_type in _INTEGERS and is_number and isinstance(value, int):
        lowest, highest = _INTEGERS[data_type]
        if lowest <= value <= highest:
            return value
    if data_type == _BOOL and isinstance(value, bool):
        return value
    if data_type == _STRING and isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    if data_type == _STRING and isinstance(value, dict):
        if not is_base64(value):
            raise InvalidRequest(f"JSON Value: {dump(value)} not formatted correctly for base64 data")
        return decode_base64(value["b64"])
    if data_type not in _WRITABLE and not isinstance(value, dict):
        raise Unsupported(f"Conversion of JSON Value: {dump(value)} to type: {tensor_type_name(data_type)}")
    raise InvalidRequest(
        f"JSON Value: {dump(value)} Type: {type_name(value)} is not of expected type: {tensor_type_name(data_type)}"
    )


def decode_base64(text: str) -> bytes:
    """
    The bytes in a base64 text; white space is ignored, padding may be left out, and a dot pads like ``=``.

    Raises:
        InvalidRequest: It is no base64 of the standard alphabet.
    """
    match = _BASE64.fullmatch(_WHITE_SPACE.sub("", text))
    if match is None or len(match[1]) % 4 == 1 or len(match[2]) not in (0, -len(match[1]) % 4):
        raise InvalidRequest("Unable to base64 decode")
    return base64.b64decode(match[1] + "=" * (-len(match[1]) % 4))


def is_base64(value: Any) -> bool:
    """Is this an object that holds bytes?"""
    return type(value) is dict and len(value) == 1 and isinstance(value.get("b64"), str)


def _is_named(value: Any) -> bool:
    """An object that names inputs."""
    return isinstance(value, dict) and not is_base64(value)


def _shape(value: Any) -> tuple[int, ...]:
    """The shape that the first element at each level shows."""
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        if not value:
            break
        value = value[0]
    return tuple(shape)


def _bracketed(shape: tuple[int, ...]) -> str:
    return f"[{','.join(map(str, shape))}]"
