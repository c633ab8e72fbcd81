"""A request that is read in a process of its own is read like any other."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tensorflow_serving.apis import input_pb2

from serving.protocol.errors import InvalidRequest
from serving.protocol.signature import DEFAULT_SIGNATURE, Signature, TensorInfo
from serving.rest.json_examples import read_examples
from serving.rest.json_requests import read_body, read_example_request, read_plain_rows, read_predict
from serving.rest.off_loop import run_in_process

SIGNATURE = Signature(
    DEFAULT_SIGNATURE, {"x": TensorInfo("x:0", 1, (-1, 2))}, {"y": TensorInfo("y:0", 1, (-1,))}, "predict", {}
)
SIGNATURES = {DEFAULT_SIGNATURE: SIGNATURE}


def test_values_are_the_same() -> None:
    """Signature, arrays and form are those of a small request."""
    content = b'{"signature_name": "", "instances": [[1.5, 2], [3, 1e-7]]}'
    name, arrays, by_rows = run_in_process(read_predict, content, SIGNATURES, ())
    here_name, here, here_by_rows = read_predict(content, SIGNATURES, ())
    assert (name, by_rows) == (DEFAULT_SIGNATURE, True) == (here_name, here_by_rows)
    np.testing.assert_array_equal(arrays["x"], here["x"])
    assert arrays["x"].dtype == np.float32


VALUES = st.recursive(
    st.floats(width=32) | st.floats() | st.integers() | st.booleans() | st.none() | st.text(max_size=2),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=2), values, max_size=2),
    max_leaves=8,
)


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@given(VALUES | st.lists(st.lists(st.floats(-1e39, 1e39), min_size=2, max_size=2)))
@example([[1.5, 2.0], [3.0, 4.25]])
@example([[1.5, True]])
@example(1.5)
@example([])
def test_plain_rows_are_the_same(rows: Any) -> None:
    """What is taken for plain rows is read as it would be with care, to the last bit."""
    content = json.dumps({"instances": rows}).encode()
    plain = read_plain_rows(content)
    if plain is None:
        return
    _, arrays, by_rows = read_predict(content, SIGNATURES, ())
    assert by_rows
    assert plain.dtype == np.float32
    assert (plain.shape, plain.tobytes()) == (arrays["x"].shape, arrays["x"].tobytes())


@pytest.mark.parametrize(
    ("content", "is_plain"),
    [
        (b'{"instances": [[1.5, 2], [3, 1e-7]]}', True),
        (b'{"instances": [[1, 2]]}', False),
        (b'{"inputs": [[1.5]]}', False),
        (b'{"instances": [[1.5]], "instances": [[2.5]]}', False),
        (b'{"instances": [[1.5], [true]]}', False),
        (b'{"instances": [[1.5], ["2.5"]]}', False),
        (b'{"instances": [[1.5], [2.5, 3.5]]}', False),
        (b'{"instances": [[1.5]]} x', False),
        (b"[1.5]", False),
    ],
)
def test_plain_rows_are_known(content: bytes, is_plain: bool) -> None:
    """Only decimals in lists of one length, and nothing else in the request."""
    assert (read_plain_rows(content) is not None) == is_plain


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[1]",
        b'{"signature_name": 1}',
        b'{"signature_name": "other", "instances": 1}',
        b'{"instances": [[1, 2], [3]]}',
        b'{"inputs": "a", "instances": []}',
    ],
)
def test_errors_are_the_same(content: bytes) -> None:
    """The text of an error does not say where it was found."""
    with pytest.raises(InvalidRequest) as here:
        read_predict(content, SIGNATURES, ())
    with pytest.raises(InvalidRequest) as there:
        run_in_process(read_predict, content, SIGNATURES, ())
    assert str(there.value) == str(here.value)


def test_examples_are_the_same() -> None:
    """Examples come back as their protocol buffer."""
    content = b'{"signature_name": "c", "examples": [{"a": 1.5, "b": ["x", "y"]}, {"a": 2.5}]}'
    name, serialized = run_in_process(read_example_request, content)
    assert name == "c"
    assert input_pb2.Input.FromString(serialized) == read_examples(read_body(content)[0])


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"{}", "DEFAULT"),
        (b'{"signature_name": ""}', "DEFAULT"),
        (b'{"signature_name": "serving_default"}', "serving_default"),
    ],
)
def test_a_signature_without_inputs_is_named_as_it_was_asked_for(content: bytes, named: str) -> None:
    """Who asked for none learns that it is the default one."""
    signature = Signature(DEFAULT_SIGNATURE, {}, {}, "predict", {})
    with pytest.raises(InvalidRequest, match=f"^Failed to get input map for signature: {named}$"):
        read_predict(content, {DEFAULT_SIGNATURE: signature}, ())
