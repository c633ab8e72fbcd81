"""A request that is not parsed again is read as if it were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorflow_serving.apis import predict_pb2

from serving.grpc.predict_requests import PredictRequests
from serving.protocol.tensors import decode
from serving.runtime.saved_model import LoadOptions, load
from tests.conftest import TinyModel

FLOAT, DOUBLE, INT32 = 1, 2, 3


def request(values: Any, as_content: bool = True, dtype: int = FLOAT, version: int = 1, alias: str = "x") -> bytes:
    """A request for some values, in one of the two ways to send them."""
    message = predict_pb2.PredictRequest()
    message.model_spec.name = "iris"
    message.model_spec.version.value = version
    tensor = message.inputs[alias]
    tensor.dtype = dtype
    array = np.asarray(values, {FLOAT: np.float32, DOUBLE: np.float64, INT32: np.int32}[dtype])
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    if as_content:
        tensor.tensor_content = array.tobytes()
    else:
        field = {FLOAT: tensor.float_val, DOUBLE: tensor.double_val, INT32: tensor.int_val}[dtype]
        field.extend(array.ravel().tolist())
    return bytes(message.SerializeToString(deterministic=True))


def read(requests: PredictRequests, content: bytes) -> tuple[int, dict[str, Any]]:
    """The version asked for and the inputs, however they were read."""
    found = requests.FromString(content)
    if found.inputs is not None:
        return found.model_spec.version.value, found.inputs
    return found.model_spec.version.value, {alias: decode(each) for alias, each in found.message.inputs.items()}


@pytest.mark.parametrize("as_content", [True, False])
@pytest.mark.parametrize("dtype", [FLOAT, DOUBLE, INT32])
def test_values_versions_and_shapes_are_distinguished(as_content: bool, dtype: int) -> None:
    """Each of many requests of the same length, in any order, gives its own values, version and shape."""
    requests = PredictRequests()
    wanted = [
        (version, np.arange(8).reshape(shape) + first)
        for first in (1, 20, 40)
        for version in (1, 2)
        for shape in ((2, 4), (4, 2), (8, 1))
    ]
    for _ in range(2):
        for version, values in wanted:
            found = read(requests, request(values, as_content, dtype, version))
            assert found[0] == version
            np.testing.assert_array_equal(found[1]["x"], values)
            assert found[1]["x"].shape == values.shape


@given(st.lists(st.tuples(st.binary(max_size=40), st.booleans(), st.integers(0, 60)), max_size=12))
def test_nothing_but_the_values_may_differ(changes: list[tuple[bytes, bool, int]]) -> None:
    """Whatever bytes stand where, a decoder with a memory says what one without says."""
    requests = PredictRequests()
    base = request([[1.5, 2.5, 3.5, 4.5]])
    requests.FromString(base)
    for replacement, as_content, position in changes:
        content = request([[9.5, 8.5, 7.5, 6.5]], as_content)
        content = content[:position] + replacement + content[position + len(replacement) :]
        assert outcome(requests, content) == outcome(PredictRequests(), content)


def test_values_that_also_stand_elsewhere_are_not_mistaken() -> None:
    """The same bytes as name of the input and as values: each request is parsed."""
    requests = PredictRequests()
    values = np.frombuffer(b"abcdefgh", np.float32)
    content = request(values, alias="abcdefgh")
    for _ in range(2):
        assert list(read(requests, content)[1]) == ["abcdefgh"]
    other = content.replace(b"abcdefgh", b"ABCDEFGH", 1)
    assert outcome(requests, other) == outcome(PredictRequests(), other)


def outcome(requests: PredictRequests, content: bytes) -> Any:
    """What reading gives, comparable."""
    try:
        version, inputs = read(requests, content)
    except Exception as exc:
        return type(exc)
    return version, {alias: (array.dtype, array.shape, array.tobytes()) for alias, array in inputs.items()}


def test_what_a_request_was_bound_to_is_remembered_while_it_is_there(tiny_model: TinyModel, tmp_path: Path) -> None:
    """For requests that differ in their values alone, until something changes; a call that is gone is not kept."""
    servable = load("tiny", 1, tiny_model(tmp_path, 1), LoadOptions())
    requests = PredictRequests()
    first = requests.FromString(request([[1.5, 2.5, 3.5, 4.5]]))
    assert first.bound(1) is None
    assert first.inputs is not None
    call, _ = servable.bind(servable.signatures["serving_default"], {"input": first.inputs["x"]})
    first.bind(1, call)
    second = requests.FromString(request([[5.5, 6.5, 7.5, 8.5]])).bound(1)
    assert second is not None
    assert second[0] is call
    np.testing.assert_array_equal(second[1][0], [[5.5, 6.5, 7.5, 8.5]])
    assert requests.FromString(request([[5.5, 6.5, 7.5, 8.5]])).bound(2) is None
    assert requests.FromString(request([[5.5, 6.5, 7.5, 8.5]], version=2)).bound(1) is None
    servable.close()
    del call, second
    assert requests.FromString(request([[1.5, 2.5, 3.5, 4.5]])).bound(1) is None
