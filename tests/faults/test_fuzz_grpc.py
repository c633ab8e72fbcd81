"""Whatever arrives over gRPC is answered or refused, and nobody else notices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_serving.apis import predict_pb2

from tests.conformance.cases import content, read_cases
from tests.conformance.client import GrpcAnswer, ask_grpc, open_channel
from tests.faults.bystander import undisturbed
from tests.faults.mutation import mutated
from tests.faults.server_process import ServerProcess, recorded_models, server_process

TIMEOUT_SECONDS = 5.0
PREDICT = "tensorflow.serving.PredictionService/Predict"
RECORDED = [
    (case.request["method"], content(case.request, "message"))
    for case in read_cases("grpc")
    if case.request["method"].startswith(
        ("tensorflow.serving.PredictionService/", "tensorflow.serving.ModelService/Get")
    )
]
PREDICTIONS = [
    content(case.request, "message")
    for case in read_cases("grpc")
    if case.request["method"] == PREDICT and case.expect["code"] == "OK"
]
REFUSALS = {
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "FAILED_PRECONDITION",
    "OUT_OF_RANGE",
    "RESOURCE_EXHAUSTED",
    "UNIMPLEMENTED",
}

sizes = st.sampled_from([0, 1, 2, 3, 4, -1, -(2**63), 2**20, 2**31, 2**32, 2**40, 2**62, 2**63 - 1])


@dataclass(frozen=True, slots=True)
class Fuzzed:
    """A server, and the channel to it."""

    process: ServerProcess
    channel: grpc.Channel

    def ask(self, method: str, message: bytes) -> GrpcAnswer:
        return ask_grpc(self.channel, method, message, TIMEOUT_SECONDS)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(native, marks=pytest.mark.xdist_group(f"fuzz-grpc-{native}"), id="native" if native else "grpcio")
        for native in (True, False)
    ],
)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    root = tmp_path_factory.mktemp("fuzz")
    with (
        server_process(root, *recorded_models(root), f"--native_grpc={request.param}") as process,
        open_channel(process.grpc_port) as channel,
    ):
        yield Fuzzed(process, channel)


def is_fair(answer: GrpcAnswer) -> bool:
    """Is it no error of the server? What is no message at all gets INTERNAL without words, as in TensorFlow Serving."""
    return answer.code in REFUSALS | {"OK"} or (answer.code, answer.message) == ("INTERNAL", "")


def test_a_recorded_message_may_come_to_any_harm(server: Fuzzed, fuzzing: settings) -> None:
    """A real message with bytes changed, lost or doubled is answered, and never by an error of the server."""

    @fuzzing
    @given(st.data())
    def holds(data: st.DataObject) -> None:
        method, message = data.draw(st.sampled_from(RECORDED))
        sent = data.draw(mutated(message))
        answer = server.ask(method, sent)
        assert is_fair(answer), (answer, method, sent)

    with undisturbed(server.process.url("iris")):
        holds()
    assert not server.process.complaints()


def test_any_tensor_is_answered(server: Fuzzed, fuzzing: settings) -> None:
    """A real request with another type, shape or content of tensor is answered, and never by an error of the server."""
    numbers = st.lists(st.integers(-(2**31), 2**31 - 1), max_size=5)
    changes = {
        "dtype": st.integers(-1, 130),
        "tensor_shape": st.lists(sizes, max_size=5).map(lambda shape: {"dim": [{"size": size} for size in shape]}),
        "float_val": st.lists(st.floats(width=32), max_size=5),
        "int_val": numbers,
        "half_val": numbers,
        "string_val": st.lists(st.binary(max_size=5), max_size=5),
        "dcomplex_val": st.lists(st.floats(), max_size=5),
        "bool_val": st.lists(st.booleans(), max_size=5),
        "tensor_content": st.binary(max_size=33),
    }

    @fuzzing
    @given(st.sampled_from(PREDICTIONS), st.fixed_dictionaries({}, optional=changes))
    def holds(message: bytes, changed: dict[str, Any]) -> None:
        request = predict_pb2.PredictRequest.FromString(message)
        for tensor in request.inputs.values():
            for field in changed:
                tensor.ClearField(field)
            tensor.MergeFrom(type(tensor)(**changed))
        answer = server.ask(PREDICT, request.SerializeToString())
        assert is_fair(answer), (answer, request)

    with undisturbed(server.process.url("iris")):
        holds()
    assert not server.process.complaints()
