"""Arrays of every type and shape come back as they were sent."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from clients.client import PredictClient
from serving.protocol.errors import InvalidRequest, Unsupported
from tests.clients.conftest import ECHOED, Served

IN_JSON = ["float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint32", "uint64", "bool", "string"]
NOT_IN_JSON = sorted(set(ECHOED) - set(IN_JSON))
SHAPES = npst.array_shapes(min_dims=0, max_dims=3, min_side=1, max_side=3)


@pytest.fixture(scope="module")
def rest(served: Served) -> Any:
    with served.client("REST") as client:
        yield client


@pytest.fixture(scope="module")
def grpc(served: Served) -> Any:
    with served.client("gRPC") as client:
        yield client


def arrays(names: list[str], shapes: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[str, NDArray[Any]]]:
    return st.sampled_from(names).flatmap(lambda name: st.tuples(st.just(name), _arrays(name, shapes)))


def _arrays(name: str, shapes: st.SearchStrategy[Any]) -> st.SearchStrategy[NDArray[Any]]:
    if name == "string":
        return npst.arrays(object, shapes, elements=st.binary(max_size=6))
    if name == "bfloat16":
        return npst.arrays(np.float32, shapes, elements=st.floats(width=16)).map(lambda a: a.astype(ECHOED[name]))
    if name == "float64":
        return npst.arrays(ECHOED[name], shapes, elements=st.floats().filter(_is_moderate))
    if ECHOED[name].kind == "f":
        return npst.arrays(ECHOED[name], shapes, elements={"allow_subnormal": False})
    return npst.arrays(ECHOED[name], shapes)


def _is_moderate(value: float) -> bool:
    """At the ends of its range RapidJSON, and so the real server, reads a double as zero or infinity."""
    return not 0 < abs(value) < 1e-300 and not 1e300 < abs(value) < np.inf


@given(case=arrays(IN_JSON, SHAPES))
@settings(deadline=None, max_examples=150)
def test_over_rest(rest: PredictClient, case: tuple[str, NDArray[Any]]) -> None:
    """What JSON can say survives it, strings to the last byte; a double's last bits are RapidJSON's."""
    name, array = case
    answer = _echo(rest, name, array)
    if name == "float64":
        np.testing.assert_allclose(answer, array, rtol=1e-14)
    else:
        np.testing.assert_array_equal(answer, array)


@given(case=arrays(list(ECHOED), npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)))
@settings(deadline=None, max_examples=150)
def test_over_grpc(grpc: PredictClient, case: tuple[str, NDArray[Any]]) -> None:
    """Every type and shape survives, also without values."""
    name, array = case
    answer = _echo(grpc, name, array)
    if name == "bfloat16":  # NumPy does not know that this type has NaN
        answer, array = answer.astype(np.float32), array.astype(np.float32)
    np.testing.assert_array_equal(answer, array)


@pytest.mark.parametrize("name", NOT_IN_JSON)
def test_types_without_json(rest: PredictClient, name: str) -> None:
    """REST refuses the types for which TensorFlow Serving has no JSON."""
    with pytest.raises((Unsupported, InvalidRequest)):
        rest.predict("echo", np.zeros(2, ECHOED[name]), signature_name=name)


@pytest.mark.parametrize("values", [["a", b"\xff\x00"], [["é"]], "one", []])
def test_lists_of_strings(client: PredictClient, values: Any) -> None:
    """Text goes as UTF-8 and bytes as they are, trailing zeros included; both come back as bytes."""
    expected = [each.encode() if isinstance(each, str) else each for each in np.array(values, object).ravel()]
    for signature, output in (("string", "y"), ("text_bytes", "text_bytes")):
        array = client.predict("echo", values, signature_name=signature).outputs[output]
        assert array.dtype == object
        assert array.ravel().tolist() == expected


@pytest.mark.parametrize(
    ("name", "values"),
    [("float32", [1, 2]), ("float64", [0.1]), ("uint64", [2**64 - 1]), ("bool", [True]), ("int8", -1)],
)
def test_lists_of_numbers(client: PredictClient, name: str, values: Any) -> None:
    """A list becomes an array of the type that the signature asks for."""
    array = client.predict("echo", {"x": values}, signature_name=name).outputs["y"]
    np.testing.assert_array_equal(array, np.array(values, ECHOED[name]), strict=True)


def test_a_large_answer(client: PredictClient) -> None:
    """An answer may be larger than the 4 MiB that gRPC allows by default."""
    array = np.zeros(1_100_000, np.float32)
    assert client.predict("echo", array, signature_name="float32").outputs["y"].shape == array.shape


def _echo(client: PredictClient, name: str, array: NDArray[Any]) -> NDArray[Any]:
    answer = client.predict("echo", array, signature_name=name).outputs["y"]
    assert (answer.dtype, answer.shape) == (array.dtype, array.shape)
    return answer
