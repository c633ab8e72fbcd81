"""
Reads the values in a JSON request as arrays.

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
from typing import Any

import numpy as np

from serving.protocol.errors import InvalidRequest, ServingError, Unsupported
from serving.protocol.signature import Signature, TensorInfo
from serving.protocol.tensors import MAX_DIMENSIONS, Array, dtype_of, shaped
from serving.protocol.tensors import type_name as tensor_type_name
from serving.rest.json_dialect import dump, members, type_name
from serving.rest.json_types import BOOL, FLOATS, INTEGERS, JSON_TYPES, STRING, UINT64
from serving.runtime.requested import unreadable

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
    """Replaces `_read_quickly` where every value must be looked at."""


def _read_quickly(value: Any, data_type: int) -> Array | None:
    """The array, if numpy reads this value as the type it should have; None where it must be looked at closely."""
    try:
        array = np.array(value)
    except (ValueError, OverflowError):
        return None
    dtype = dtype_of(data_type)
    if data_type in FLOATS and array.dtype.kind in "iu":
        array = array.astype(np.float64)  # in TensorFlow Serving every number is a double before it is a float
    if data_type in FLOATS and array.dtype.kind == "f":
        return array.astype(dtype, copy=False)
    if data_type in INTEGERS and (array.dtype.kind == "i" or not array.size):
        lowest, highest = INTEGERS[data_type]
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

        A key that is repeated in a row gives more values than there is room for; the last ones are left out.

        Raises:
            InvalidRequest: It has more dimensions than a tensor.
        """
        shape = (*rows, *(self._shape or ()))
        values = self._values[: math.prod(shape)]
        dtype = dtype_of(self._data_type)
        if dtype is None:
            raise InvalidRequest(f"tensor parsing error: {self._name}")
        if self._data_type == STRING:
            array = np.empty(len(values), object)
            array[:] = values
        elif self._data_type in INTEGERS and self._data_type != UINT64:
            array = np.array(values, np.int64).astype(dtype)
        else:
            with np.errstate(over="ignore"):
                array = np.array(values, np.float64 if self._data_type in FLOATS else dtype).astype(dtype)
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
    if data_type in FLOATS and is_number:
        return value
    if data_type in INTEGERS and is_number and isinstance(value, int):
        lowest, highest = INTEGERS[data_type]
        if lowest <= value <= highest:
            return value
    if data_type == BOOL and isinstance(value, bool):
        return value
    if data_type == STRING and isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    if data_type == STRING and isinstance(value, dict):
        if not is_base64(value):
            raise InvalidRequest(f"JSON Value: {dump(value)} not formatted correctly for base64 data")
        return decode_base64(value["b64"])
    if data_type not in JSON_TYPES and not isinstance(value, dict):
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
    """Whether this is an object that holds bytes."""
    return type(value) is dict and len(value) == 1 and isinstance(value.get("b64"), str)


def _is_named(value: Any) -> bool:
    """Whether this is an object that names inputs."""
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
