"""A client without any ``.proto`` file learns from the server what can be called, and calls it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

TOKEN = "a-secret"
REFLECTION = ["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"]
SERVING = ["tensorflow.serving.ModelService", "tensorflow.serving.PredictionService"]
HEALTH = "grpc.health.v1.Health"

both_transports = pytest.mark.parametrize("native_grpc", [True, False])


class Renamed(grpc.StreamStreamClientInterceptor):
    """Asks with this version of the protocol, which grpcio-reflection's client does not know, and with a token."""

    def __init__(self, version: str, token: str = "") -> None:
        self._version, self._token = version, token

    def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        details = client_call_details._replace(
            method=client_call_details.method.replace("v1alpha", self._version),
            metadata=[("authorization", f"Bearer {self._token}")] if self._token else None,
        )
        return continuation(details, request_iterator)


@contextmanager
def connected(server: Any, version: str = "v1", token: str = "") -> Iterator[grpc.Channel]:
    """A channel that asks with this version of the protocol."""
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        yield grpc.intercept_channel(channel, Renamed(version, token))


@pytest.fixture
def base_path(tmp_path: Path, tiny_model: Any) -> str:
    """Where one version is."""
    tiny_model(tmp_path / "tiny", 1)
    return str(tmp_path / "tiny")


@both_transports
@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_a_client_without_descriptors_predicts(
    model_server: Any, base_path: str, version: str, native_grpc: bool
) -> None:
    """Services are listed, their messages built with all that they import, and a call made so is answered."""
    server = model_server(model_base_path=base_path, native_grpc=native_grpc)
    with connected(server, version) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert sorted(database.get_services()) == sorted(REFLECTION + SERVING)
        pool = descriptor_pool.DescriptorPool(database)
        method = pool.FindServiceByName("tensorflow.serving.PredictionService").methods_by_name["Predict"]
        kind: Any = message_factory.GetMessageClass(method.input_type)
        answer: Any = message_factory.GetMessageClass(method.output_type)
        request = kind(model_spec={"name": "default"})
        request.inputs["input"].CopyFrom(type(request.inputs["input"])(dtype="DT_FLOAT", float_val=[1, 2, 3, 4]))
        for size in (1, 4):
            request.inputs["input"].tensor_shape.dim.add(size=size)
        call: Any = channel.unary_unary(f"/{method.containing_service.full_name}/{method.name}")
        response = answer.FromString(call(request.SerializeToString(), timeout=20))
    assert response.model_spec.version.value == 1
    assert response.outputs


@both_transports
def test_every_listed_service_can_be_described(model_server: Any, base_path: str, native_grpc: bool) -> None:
    """What is listed has methods whose messages are there; the health check is listed where it is offered."""
    server = model_server(model_base_path=base_path, native_grpc=native_grpc, enable_grpc_healthcheck_service=True)
    with connected(server) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        services = sorted(database.get_services())
        assert services == sorted([*REFLECTION, *SERVING, HEALTH])
        pool = descriptor_pool.DescriptorPool(database)
        described = {name: pool.FindServiceByName(name).methods for name in services}
        assert all(method.output_type.fields for methods in described.values() for method in methods)
        with pytest.raises(KeyError):
            pool.FindServiceByName("tensorflow.serving.SessionService")


@both_transports
def test_the_token_is_wanted(model_server: Any, tmp_path: Path, base_path: str, native_grpc: bool) -> None:
    """Who may not ask a model may not ask what can be asked."""
    (tmp_path / "token").write_text(TOKEN)
    server = model_server(model_base_path=base_path, token_file=tmp_path / "token", native_grpc=native_grpc)
    with connected(server, token=TOKEN) as channel:
        assert SERVING[0] in ProtoReflectionDescriptorDatabase(channel).get_services()
    for token in ("", "another"):
        with connected(server, token=token) as channel, pytest.raises(grpc.RpcError) as caught:
            ProtoReflectionDescriptorDatabase(channel).get_services()
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED


@both_transports
def test_a_client_that_stays_does_not_hold_up_the_stop(model_server: Any, base_path: str, native_grpc: bool) -> None:
    """A server that stops ends the questions of whoever is still connected."""
    server = model_server(model_base_path=base_path, native_grpc=native_grpc)
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        call: Any = channel.stream_stream(
            f"/{REFLECTION[0]}/ServerReflectionInfo",
            reflection_pb2.ServerReflectionRequest.SerializeToString,
            reflection_pb2.ServerReflectionResponse.FromString,
        )
        questions = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        answers = call(_then_nothing(questions, server))
        assert next(answers).list_services_response.service
        started = time.monotonic()
        server.request_stop()
        server.wait()
        assert time.monotonic() - started < 10


def _then_nothing(questions: Iterator[Any], server: Any) -> Iterator[Any]:
    yield from questions
    server.wait()
