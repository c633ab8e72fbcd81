"""Tensors survive the wire."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from serving.protocol.tensors import TooManyDimensions, data_type_of, decode, dtype_of, encode

NUMERIC = [1, 2, 3, 4, 5, 6, 8, 9, 10, 14, 17, 18, 19, 22, 23]


@pytest.fixture(scope="module")
def tensor_proto() -> Any:
    from tensorflow.core.framework import tensor_pb2

    return tensor_pb2.TensorProto


def arrays() -> st.SearchStrategy[Any]:
    """Arrays of every type that can be sent, bit patterns included."""

    def of(data_type: int) -> st.SearchStrategy[Any]:
        dtype = dtype_of(data_type)
        assert dtype is not None
        shapes = npst.array_shapes(min_dims=0, min_side=0, max_dims=4, max_side=4)
        if data_type == 10:
            return npst.arrays(np.bool_, shapes)
        raw = npst.arrays(np.dtype((np.void, dtype.itemsize)), shapes, elements=st.binary(max_size=dtype.itemsize))
        return raw.map(lambda array: np.frombuffer(array.tobytes(), dtype).reshape(array.shape))

    text = npst.arrays(object, npst.array_shapes(min_dims=0, max_dims=3), elements=st.binary(max_size=5))
    return st.one_of(text, *map(of, NUMERIC))


@settings(deadline=None)
@given(array=arrays(), as_content=st.booleans())
def test_tensors_survive_the_round_trip(tensor_proto: Any, array: Any, as_content: bool) -> None:
    """Every dtype and shape comes back bit for bit, from typed fields and from content, over the wire."""
    sent = tensor_proto()
    encode(array, sent, as_content)
    received = decode(tensor_proto.FromString(sent.SerializeToString()))
    assert received.dtype == array.dtype
    assert received.shape == array.shape
    if array.dtype == object:
        assert received.tolist() == array.tolist()
    else:
        assert _without_nan_payload(received) == _without_nan_payload(array)


def _without_nan_payload(array: Any) -> bytes:
    """The bytes of an array; Python floats on the way may quieten a signalling NaN."""
    if array.dtype.kind in "fc":
        array = np.where(np.isnan(array), array.dtype.type(np.nan), array)
    content: bytes = array.tobytes()
    return content


def test_too_few_values_repeat_the_last_and_none_means_zeros(tensor_proto: Any) -> None:
    """A shape larger than the values given is filled as TensorFlow fills it."""
    some = tensor_proto(dtype=1, float_val=[1.0, 2.0])
    some.tensor_shape.dim.add(size=4)
    assert decode(some).tolist() == [1.0, 2.0, 2.0, 2.0]
    none = tensor_proto(dtype=9)
    none.tensor_shape.dim.add(size=2)
    assert decode(none).tolist() == [0, 0]


def test_surplus_values_are_ignored_and_small_integers_wrap(tensor_proto: Any) -> None:
    """Typed fields may hold more than the shape needs, and 300 as uint8 is 44."""
    proto = tensor_proto(dtype=4, int_val=[300, -1, 7])
    proto.tensor_shape.dim.add(size=2)
    assert decode(proto).tolist() == [44, 255]


def test_nothing_is_read_where_there_is_no_room(tensor_proto: Any) -> None:
    """A shape without elements makes whatever content there is meaningless."""
    proto = tensor_proto(dtype=1, tensor_content=b"abc")
    for size in (2, 0):
        proto.tensor_shape.dim.add(size=size)
    assert decode(proto).shape == (2, 0)


@pytest.mark.parametrize(
    ("dtype", "sizes", "content"),
    [
        (0, [1], b""),
        (1, [2], b"\0\0\0\0"),
        (10, [1], b"\x02"),
        (1, [-1], b""),
        (1, [1] * 255, b"\0\0\0\0"),
        (1, [2**40], b""),
        (1, [2**32, 0], b""),
        (7, [2], b"\x01\x05a"),
        (7, [1], b"\x81"),
        (999, [1], b""),
    ],
)
def test_what_is_no_tensor_is_refused(tensor_proto: Any, dtype: int, sizes: list[int], content: bytes) -> None:
    """Unknown types, wrong lengths, impossible shapes and huge fills raise, and allocate nothing."""
    proto = tensor_proto(dtype=dtype, tensor_content=content)
    for size in sizes:
        proto.tensor_shape.dim.add(size=size)
    with pytest.raises(ValueError, match=r".+"):
        decode(proto)


@pytest.mark.parametrize(("text", "count"), [(b"", 2**24), (b"x" * 2**20, 2**10)], ids=["many", "long"])
def test_one_string_stands_for_what_fits_only(tensor_proto: Any, text: bytes, count: int) -> None:
    """TensorFlow copies a string for each element that it stands for."""
    proto = tensor_proto(dtype=7, string_val=[text])
    size = proto.tensor_shape.dim.add(size=count)
    with pytest.raises(ValueError, match=f"1 values for {count}"):
        decode(proto)
    size.size = 3
    assert decode(proto).tolist() == [text] * 3


def of_dimensions(tensor_proto: Any, count: int) -> Any:
    sent = tensor_proto(dtype=1, float_val=[1.5])
    for _ in range(count):
        sent.tensor_shape.dim.add(size=1)
    return sent


def test_tensors_of_many_dimensions_survive(tensor_proto: Any) -> None:
    """As many dimensions as numpy has."""
    sent = of_dimensions(tensor_proto, 64)
    array = decode(sent)
    assert (array.ndim, array.reshape(-1).tolist()) == (64, [1.5])
    again = tensor_proto()
    encode(array, again)
    assert again == sent


@pytest.mark.parametrize("dimensions", [65, 254])
def test_tensors_of_more_dimensions_are_reported_apart_from_what_is_none(tensor_proto: Any, dimensions: int) -> None:
    """TensorFlow has up to 254."""
    with pytest.raises(TooManyDimensions, match=f"{dimensions} dimensions, and no more than 64 are supported"):
        decode(of_dimensions(tensor_proto, dimensions))
    with pytest.raises(ValueError, match="255 dimensions") as caught:
        decode(of_dimensions(tensor_proto, 255))
    assert not isinstance(caught.value, TooManyDimensions)


def test_an_array_type_that_tensorflow_lacks_cannot_be_sent() -> None:
    """Dates have no DataType."""
    with pytest.raises(ValueError, match="cannot be sent"):
        data_type_of(np.dtype("datetime64[s]"))
    assert data_type_of(np.dtype(ml_dtypes.bfloat16)) == 14
