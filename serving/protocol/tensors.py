"""
Reads and writes arrays as ``TensorProto`` messages.

Works on TensorFlow's own message class and on any other with the same fields. Strings are object arrays of bytes.

Source: tensorflow/core/framework/tensor.cc, tensor.proto, types.proto
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import ml_dtypes
import numpy as np
from google.protobuf.unknown_fields import UnknownFieldSet
from numpy.typing import NDArray

from serving.protocol import wire_pb2 as wire

Array = NDArray[Any]

STRING = 7
BOOL = 10
MAX_DIMENSIONS = 254
MAX_NUMPY_DIMENSIONS = 64
MAX_FILL_BYTES = 64 * 2**20
"""so many may stand for the last value of a tensor: all other requests wait until they are written"""
_STRING_OVERHEAD_BYTES = 32
_AT_A_TIME = 2**16

_QUANTIZED: dict[int, np.dtype[Any]] = {
    11: np.dtype([("qint8", np.int8)]),
    12: np.dtype([("quint8", np.uint8)]),
    13: np.dtype([("qint32", np.int32)]),
    15: np.dtype([("qint16", np.int16)]),
    16: np.dtype([("quint16", np.uint16)]),
}
"""As TensorFlow has them in Python: one field of integers, whose name is that of the type."""
_DTYPES: dict[int, np.dtype[Any]] = {
    **_QUANTIZED,
    1: np.dtype(np.float32),
    2: np.dtype(np.float64),
    3: np.dtype(np.int32),
    4: np.dtype(np.uint8),
    5: np.dtype(np.int16),
    6: np.dtype(np.int8),
    STRING: np.dtype(object),
    8: np.dtype(np.complex64),
    9: np.dtype(np.int64),
    BOOL: np.dtype(np.bool_),
    14: np.dtype(ml_dtypes.bfloat16),
    17: np.dtype(np.uint16),
    18: np.dtype(np.complex128),
    19: np.dtype(np.float16),
    22: np.dtype(np.uint32),
    23: np.dtype(np.uint64),
}
_NUMBERS = {dtype: number for number, dtype in _DTYPES.items()}
_REFERENCE = 100
"""what is added to the number of a type for a reference to it"""
_TYPE_NAMES = {
    0: "INVALID",
    1: "float",
    2: "double",
    3: "int32",
    4: "uint8",
    5: "int16",
    6: "int8",
    STRING: "string",
    8: "complex64",
    9: "int64",
    BOOL: "bool",
    11: "qint8",
    12: "quint8",
    13: "qint32",
    14: "bfloat16",
    15: "qint16",
    16: "quint16",
    17: "uint16",
    18: "complex128",
    19: "half",
    20: "resource",
    21: "variant",
    22: "uint32",
    23: "uint64",
    24: "float8_e5m2",
    25: "float8_e4m3fn",
    26: "float8_e4m3fnuz",
    27: "float8_e4m3b11fnuz",
    28: "float8_e5m2fnuz",
    29: "int4",
    30: "uint4",
    31: "int2",
    32: "uint2",
}
# The field that holds the values of a type, and how they stand in it.
_FIELDS: dict[int, tuple[str, np.dtype[Any]]] = {
    1: ("float_val", np.dtype(np.float32)),
    2: ("double_val", np.dtype(np.float64)),
    3: ("int_val", np.dtype(np.int64)),
    4: ("int_val", np.dtype(np.int64)),
    5: ("int_val", np.dtype(np.int64)),
    6: ("int_val", np.dtype(np.int64)),
    STRING: ("string_val", np.dtype(object)),
    **dict.fromkeys(_QUANTIZED, ("int_val", np.dtype(np.int64))),
    8: ("scomplex_val", np.dtype(np.float32)),
    9: ("int64_val", np.dtype(np.int64)),
    BOOL: ("bool_val", np.dtype(np.bool_)),
    14: ("half_val", np.dtype(np.uint16)),
    17: ("int_val", np.dtype(np.int64)),
    18: ("dcomplex_val", np.dtype(np.float64)),
    19: ("half_val", np.dtype(np.uint16)),
    22: ("uint32_val", np.dtype(np.uint32)),
    23: ("uint64_val", np.dtype(np.uint64)),
}
_BIT_PATTERNS = {14, 19}


class TooManyDimensions(ValueError):
    """A tensor that TensorFlow has, and no array can hold."""

    def __init__(self, count: int) -> None:
        super().__init__(f"{count} dimensions, and no more than {MAX_NUMPY_DIMENSIONS} are supported")


def shaped(values: Array, shape: tuple[int, ...]) -> Array:
    """
    The values in this shape.

    Raises:
        TooManyDimensions: An array cannot have as many.
        ValueError: Not even TensorFlow has tensors of so many.
    """
    check_dimensions(len(shape))
    return values.reshape(shape)


def check_dimensions(count: int) -> None:
    """The same for a shape of so many."""
    if count > MAX_DIMENSIONS:
        raise ValueError(f"{count} dimensions")
    if count > MAX_NUMPY_DIMENSIONS:
        raise TooManyDimensions(count)


def dtype_of(data_type: int) -> np.dtype[Any] | None:
    """The array type for a ``DataType`` number, or None for one that no array can hold."""
    return _DTYPES.get(data_type)


def data_type_of(dtype: np.dtype[Any]) -> int:
    """
    The ``DataType`` number for an array type.

    Raises:
        ValueError: There is none.
    """
    if dtype.kind in "OSU":
        return STRING
    number = _NUMBERS.get(dtype)
    if number is None:
        raise ValueError(f"Arrays of type {dtype} cannot be sent")
    return number


def is_quantized(data_type: int) -> bool:
    """Whether this is a type of integers that stand for fractions."""
    return data_type in _QUANTIZED


def type_name(data_type: int) -> str:
    """TensorFlow's short name for a ``DataType`` number: ``float``, ``half``, ``string_ref`` …"""
    if data_type > _REFERENCE:
        return f"{type_name(data_type - _REFERENCE)}_ref"
    return _TYPE_NAMES.get(data_type, f"unknown dtype enum ({data_type})")


def decode(proto: Any) -> Array:
    """
    The array in a ``TensorProto``.

    ``tensor_content`` must have the exact length. Of the typed fields, too few values repeat the last one, none at all
    means zeros, and what is too much is ignored. Where the shape has no room for any value, nothing is read; its other
    dimensions must not be huge.

    Raises:
        TooManyDimensions: An array cannot have as many.
        ValueError: The message holds no tensor.
    """
    dtype = _DTYPES.get(proto.dtype)
    if dtype is None:
        raise ValueError(f"unknown type {proto.dtype}")
    shape = tuple([dim.size for dim in proto.tensor_shape.dim])
    check_dimensions(len(shape))
    if min(shape, default=0) < 0:
        raise ValueError(f"bad shape {shape}")
    count = math.prod(shape)
    if not count and math.prod(filter(None, shape)) * dtype.itemsize > MAX_FILL_BYTES:
        raise ValueError(f"bad shape {shape}")  # of no columns a graph can make a value per row
    content = proto.tensor_content if count else b""
    values = _from_content(content, proto.dtype, dtype, count) if content else _from_field(proto, dtype, count)
    return values.reshape(shape)


def is_packed(proto: wire.PackedTensorProto) -> bool:
    """Whether nothing was lost by reading this tensor as a packed one: it may have been written value by value."""
    return not (
        len(UnknownFieldSet(proto))
        or _is_cut_off(proto.float_val, 4)
        or _is_cut_off(proto.double_val, 8)
        or _is_cut_off(proto.scomplex_val, 4)
        or _is_cut_off(proto.dcomplex_val, 8)
    )


def _is_cut_off(chunks: Sequence[bytes], size: int) -> bool:
    return bool(chunks) and any(len(chunk) % size for chunk in chunks)


def encode(array: Array, proto: Any, as_content: bool = False) -> None:
    """
    Write an array into an empty ``TensorProto``, into its typed field or as ``tensor_content``.

    Raises:
        ValueError: Its type cannot be sent.
    """
    data_type = data_type_of(array.dtype)
    proto.dtype = data_type
    proto.tensor_shape.SetInParent()
    dims = proto.tensor_shape.dim
    for size in array.shape:
        dims.add(size=size)
    if data_type == STRING:
        values = [as_bytes(value) for value in array.ravel()]
        if as_content:
            proto.tensor_content = b"".join([*(varint(len(value)) for value in values), *values])
        else:
            proto.string_val.extend(values)
    elif as_content:
        proto.tensor_content = np.ascontiguousarray(array.reshape(-1)).tobytes()
    else:
        field, kind = _FIELDS[data_type]
        flat = _flat(array, data_type, kind)
        if isinstance(proto, wire.PackedTensorProto) and kind.kind == "f":
            getattr(proto, field).extend([flat.tobytes()] if flat.size else [])
        else:
            target = getattr(proto, field)
            for piece in _pieces(len(flat)):
                target.extend(flat[piece].tolist())


def as_bytes(value: Any) -> bytes:
    """One element of a string array as bytes."""
    return value if isinstance(value, bytes) else str(value).encode()


def _from_content(content: bytes, data_type: int, dtype: np.dtype[Any], count: int) -> Array:
    if data_type == STRING:
        return _strings_from_content(content, count)
    values = np.frombuffer(content, dtype)
    if len(values) != count:
        raise ValueError(f"{len(values)} values for {count}")
    if data_type == BOOL and values.view(np.uint8).max(initial=0) > 1:
        raise ValueError("a bool that is neither 0 nor 1")
    return values


def _strings_from_content(content: bytes, count: int) -> Array:
    """Strings as TensorFlow packs them: all lengths as varints, then all bytes."""
    lengths: list[int] = []
    position = 0
    while len(lengths) < count:
        length, shift = 0, 0
        while True:
            if position >= len(content) or shift > 63:
                raise ValueError("string lengths are cut off")
            byte = content[position]
            position += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        lengths.append(length)
    if position + sum(lengths) != len(content):
        raise ValueError("strings do not fill the content")
    values = np.empty(count, object)
    for index, length in enumerate(lengths):
        values[index] = content[position : position + length]
        position += length
    return values


def varint(number: int) -> bytes:
    """A number as protobuf packs it."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def _from_field(proto: Any, dtype: np.dtype[Any], count: int) -> Array:
    field, kind = _FIELDS[proto.dtype]
    given = getattr(proto, field)
    is_packed = kind.kind == "f" and isinstance(proto, wire.PackedTensorProto)
    if is_packed:
        given = np.frombuffer(given[0] if len(given) == 1 else b"".join(given), kind)
    if dtype.kind == "c":
        values = np.array(given, kind)[: len(given) // 2 * 2].view(dtype)
    elif is_packed:
        values = given
    elif proto.dtype in _BIT_PATTERNS:
        values = np.array(given, np.int64).astype(kind).view(dtype)
    elif proto.dtype == STRING:
        values = np.empty(min(len(given), count), object)
        for piece in _pieces(len(values)):
            values[piece] = given[piece]
    elif proto.dtype in _QUANTIZED:
        values = np.array(given, kind).astype(dtype[0]).view(dtype)
    else:
        values = np.array(given, kind).astype(dtype, copy=False)
    if len(values) >= count:
        return values[:count]
    last = values[-1] if len(values) else _zero(proto.dtype, dtype)
    size = _STRING_OVERHEAD_BYTES + len(last) if proto.dtype == STRING else dtype.itemsize
    if count * size > MAX_FILL_BYTES:
        raise ValueError(f"{len(given)} values for {count}")
    filled = np.empty(count, dtype)
    filled[: len(values)] = values
    filled[len(values) :] = last
    return filled


def _zero(data_type: int, dtype: np.dtype[Any]) -> Any:
    return b"" if data_type == STRING else np.zeros((), dtype)[()]


def _pieces(count: int) -> Iterator[slice]:
    """So many values, a part at a time: between the parts other threads may run."""
    return (slice(start, min(start + _AT_A_TIME, count)) for start in range(0, count, _AT_A_TIME))


def _flat(array: Array, data_type: int, kind: np.dtype[Any]) -> Array:
    flat = np.ascontiguousarray(array.reshape(-1))
    if data_type in _QUANTIZED:
        return flat.view(flat.dtype[0])
    if data_type in _BIT_PATTERNS or flat.dtype.kind == "c":
        return flat.view(kind)
    return flat
