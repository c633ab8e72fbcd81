"""Merged requests get exactly their own answers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from serving.inference.batching import Merger
from serving.inference.monitoring import Metrics
from serving.protocol.errors import GraphError, InvalidRequest
from serving.protocol.tensors import Array
from serving.runtime.saved_model import LoadOptions, load
from serving.runtime.servable import Servable
from tests.conftest import TinyModel
from tests.serving.inference.together import run_together


@pytest.fixture
def servable(tiny_model: TinyModel, tmp_path: Path) -> Iterator[Servable]:
    """Version 7 of the tiny model, loaded."""
    loaded = load("tiny", 7, tiny_model(tmp_path, 7), LoadOptions())
    yield loaded
    loaded.close()


def rows(*values: float) -> Array:
    """One row a value, whose sum is that value."""
    return np.array([[value, 0, 0, 0] for value in values], dtype=np.float32)


def answer(*values: float) -> Array:
    """What version 7 says about `rows`."""
    return np.array([[value + 7, 10 * value + 7, 100 * value + 7] for value in values], dtype=np.float32)


def test_one_turn_is_one_run(servable: Servable) -> None:
    """Requests of one turn run once, whatever their numbers of rows, and each gets its own rows back."""
    signature = servable.signatures["serving_default"]
    inputs = [rows(1), rows(2, 3), rows(4, 5, 6)]
    results, runs = run_together([servable.bind(signature, {"input": each}) for each in inputs])
    assert runs == 1
    for result, expected in zip(results, [answer(1), answer(2, 3), answer(4, 5, 6)], strict=True):
        assert isinstance(result, list)
        np.testing.assert_array_equal(result[0], expected)


def test_who_comes_alone_is_answered_at_once(servable: Servable) -> None:
    """After a turn with one request the next one runs when it comes; more of its turn are one run at the end of it."""
    signature = servable.signatures["serving_default"]
    call, one = servable.bind(signature, {"input": rows(1)})
    while call.seconds == float("inf"):
        call.measured(one, 1e-5)

    async def main() -> None:
        merger = Merger(asyncio.get_running_loop(), 2, Metrics())
        results: list[object] = []
        merger.submit(call, one, results.append)
        assert (len(results), merger.runs) == (0, 0)
        await asyncio.sleep(0)
        assert (len(results), merger.runs) == (1, 1)
        for _ in range(4):
            merger.submit(call, one, results.append)
        assert (len(results), merger.runs) == (2, 2)
        await asyncio.sleep(0)
        assert (len(results), merger.runs) == (5, 3)
        for _ in range(4):
            merger.submit(call, one, results.append)
        assert (len(results), merger.runs) == (5, 3)
        await asyncio.sleep(0)
        assert (len(results), merger.runs) == (9, 4)
        merger.close()

    asyncio.run(main())


def test_a_bad_request_spoils_no_neighbour(servable: Servable) -> None:
    """A request that the graph refuses gets the graph's error; the others of its turn get their answers."""
    signature = servable.signatures["serving_default"]
    bad = np.ones((1, 5, 4), dtype=np.float32)
    inputs = [rows(1), np.ones((2,), dtype=np.float32), rows(2), bad[0, :, :3]]
    results, runs = run_together([servable.bind(signature, {"input": each}) for each in inputs])
    assert runs == 3
    assert isinstance(results[0], list)
    assert isinstance(results[2], list)
    np.testing.assert_array_equal(results[0][0], answer(1))
    np.testing.assert_array_equal(results[2][0], answer(2))
    assert isinstance(results[1], GraphError)


def test_a_failed_merged_run_is_taken_apart(servable: Servable) -> None:
    """When the merged run fails, its members run one by one."""
    signature = servable.signatures["serving_default"]
    call, arrays = servable.bind(signature, {"input": rows(1)})
    graph = call._graph

    def refuse_many(arrays: Sequence[Array]) -> list[Array]:
        if len(arrays[0]) > 1:
            raise InvalidRequest("too many rows")
        return graph(arrays)

    call._graph = refuse_many
    results, _ = run_together([(call, arrays), (call, [rows(2, 3)]), (call, [rows(4)])])
    assert isinstance(results[1], InvalidRequest)
    for result, expected in [(results[0], answer(1)), (results[2], answer(4))]:
        assert isinstance(result, list)
        np.testing.assert_array_equal(result[0], expected)


def test_a_proof_that_turns_out_wrong_ends_merging(servable: Servable, caplog: pytest.LogCaptureFixture) -> None:
    """Where the outputs do not have the rows of the inputs, each request runs by itself, now and from then on."""
    signature = servable.signatures["serving_default"]
    call, _ = servable.bind(signature, {"input": rows(1)})
    graph = call._graph
    call._graph = lambda arrays: [graph(arrays)[0][:2]]
    for _ in range(2):
        results, _ = run_together([(call, [rows(each)]) for each in (1, 2, 3)])
        for result, expected in zip(results, (1, 2, 3), strict=True):
            assert isinstance(result, list)
            np.testing.assert_array_equal(result[0], answer(expected))
    assert not call.mergeable
    logged = [each.getMessage() for each in caplog.records if "merging ends" in each.message]
    assert logged == [
        "merging ends, outputs have other rows than inputs model=tiny version=7 signature=serving_default"
    ]


def test_runs_with_side_effects_are_not_merged(servable: Servable) -> None:
    """A signature that writes to a variable runs once for each request, here one run after the other."""
    signature = servable.signatures["counted"]
    one = np.zeros(1, dtype=np.float32)
    results, runs = run_together([servable.bind(signature, {"x": one}) for _ in range(3)], threads=1)
    assert runs == 3
    counts = sorted(float(result[0][0]) for result in results if isinstance(result, list))
    assert counts == [1, 2, 3]


def test_merging_can_be_turned_off(servable: Servable) -> None:
    """With merging off every request is a run."""
    signature = servable.signatures["serving_default"]
    results, runs = run_together([servable.bind(signature, {"input": rows(each)}) for each in (1, 2)], merge=False)
    assert runs == 2
    assert all(isinstance(result, list) for result in results)


def test_zero_rows(servable: Servable) -> None:
    """A request without rows is answered without rows."""
    signature = servable.signatures["serving_default"]
    results, _ = run_together(
        [servable.bind(signature, {"input": rows(1)[:0]}), servable.bind(signature, {"input": rows(1)})]
    )
    assert [result[0].shape for result in results if isinstance(result, list)] == [(0, 3), (1, 3)]


def test_unmeasured_slow_and_large_runs_go_to_a_thread(servable: Servable) -> None:
    """Only a run that is known to be quick may hold up the event loop."""
    call, arrays = servable.bind(servable.signatures["serving_default"], {"input": rows(1)})
    assert not call.is_short(arrays)
    for seconds in (1.0, 0.5, 0.0001):  # the first runs prepare the graph and say nothing
        call.measured(arrays, seconds)
    assert call.is_short(arrays)
    many, flat = np.zeros((100, 4), dtype=np.float32), np.zeros(4, dtype=np.float32)
    for large in ([many], [flat]):
        assert not call.is_short(large)
        call.measured(large, 0.002)
        assert call.is_short(large)
    call.measured(arrays, 0.1)
    assert call.is_short(arrays)  # it was disturbed
    for seconds in (0.1, 0.1, 0.1):
        call.measured(arrays, seconds)
    assert not call.is_short(arrays)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "input size does not match signature: 0!=1 len({}) != len({input}). Sent extra: {}. "
         "Missing but required: {input}."),
        ({"x": rows(1)}, "Signature input alias: input(feed name: serving_default_input:0) not found in request and no "
         "default value provided. Inputs expected to be in the request {x}, or default input alias set: "),
    ],
)  # fmt: skip
def test_names_are_checked(servable: Servable, inputs: dict[str, Array], message: str) -> None:
    """A request that does not fit the signature is refused in TensorFlow Serving's words."""
    with pytest.raises(InvalidRequest) as caught:
        servable.bind(servable.signatures["serving_default"], inputs)
    assert caught.value.message == message


@pytest.mark.parametrize(("array", "name"), [(np.ones((1, 4)), "double"), (np.array([b"a"], dtype=object), "string")])
def test_types_are_checked(servable: Servable, array: Array, name: str) -> None:
    """An array of another type is refused in TensorFlow's words."""
    call, arrays = servable.bind(servable.signatures["serving_default"], {"input": array})
    with pytest.raises(InvalidRequest) as caught:
        call.check_types(arrays)
    assert caught.value.message == f"Expects arg[0] to be float but {name} is provided"


def test_outputs_are_checked(servable: Servable) -> None:
    """An unknown or repeated output is refused."""
    signature = servable.signatures["serving_default"]
    with pytest.raises(InvalidRequest, match="output tensor alias not found in signature: out"):
        servable.bind(signature, {"input": rows(1)}, ["out"])
    with pytest.raises(InvalidRequest, match="duplicate output tensor alias: output"):
        servable.bind(signature, {"input": rows(1)}, ["output", "output"])


def test_a_retired_servable_waits_for_its_last_user(servable: Servable) -> None:
    """What is in use is not freed before it is released."""
    freed: list[bool] = []
    servable.acquire()
    servable.acquire()
    servable.retire(lambda: freed.append(True))
    servable.release()
    assert not freed
    servable.release()
    assert freed
