"""Several servers of one repository: all of them have a version, or none is promoted."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from clients import GrpcClient, RestClient
from flows.promotion.labelling import set_label
from flows.promotion.undo import PromotionUndone
from flows.promotion.verification import verify
from flows.settings import Endpoint, InvalidSettings, Settings, load_settings
from serving.protocol.errors import HotswapError
from tests.pipelines import ROWS, Pipeline, with_endpoints


def answered(pipeline: Pipeline, **how: Any) -> set[int | None]:
    """The versions that answer at all endpoints over both protocols."""
    found = set()
    for each in pipeline.settings.endpoints:
        with RestClient(each.rest_url) as rest, GrpcClient(each.grpc_target) as grpc:
            found |= {client.predict(pipeline.model, ROWS, **how).version for client in (rest, grpc)}
    return found


def test_a_version_is_promoted_at_every_endpoint(replicas: tuple[Pipeline, list[Any]]) -> None:
    """Both servers answer by number and by label; the record names both."""
    pipeline, servers = replicas
    version = pipeline.promote(1)
    assert answered(pipeline, version=version) == answered(pipeline, label="stable") == {version}
    assert pipeline.row(version).state == "AVAILABLE"
    with pipeline.repository.lock(pipeline.model):
        name = verify(pipeline.deployment, version)
    assert all(str(server.rest_port) in name for server in servers)


def test_a_dead_endpoint_undoes_a_promotion_and_is_named(replicas: tuple[Pipeline, list[Any]]) -> None:
    """The label does not move anywhere, and the other server keeps serving the version before."""
    pipeline, (alive, dead) = replicas
    first = pipeline.promote(1)
    before = pipeline.live()
    dead.stop()
    pipeline.be_impatient()
    with pytest.raises(PromotionUndone, match=f"127.0.0.1:{dead.grpc_port} cannot be reached") as caught:
        pipeline.promote(2)
    assert caught.value.exit_code == 5
    assert pipeline.live() == before
    pipeline.settings = with_endpoints(pipeline.settings, (alive.rest_port, alive.grpc_port))
    assert answered(pipeline, label="stable") == answered(pipeline) == {first}


def test_an_endpoint_that_does_not_answer_in_time_undoes_a_promotion(replicas: tuple[Pipeline, list[Any]]) -> None:
    """A server that takes connections and says nothing is named too, after the seconds of the settings."""
    pipeline, servers = replicas
    first = pipeline.promote(1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        ports = [(server.rest_port, server.grpc_port) for server in servers]
        both = pipeline.settings
        pipeline.settings = with_endpoints(both, *ports, (port, port)).model_copy(
            update={"server_timeout_seconds": 1.0}
        )
        with pytest.raises(PromotionUndone, match=str(port)):
            pipeline.promote(2)
    pipeline.settings = both
    assert answered(pipeline, label="stable") == answered(pipeline) == {first}


def test_a_label_moves_at_every_endpoint_or_at_none(replicas: tuple[Pipeline, list[Any]]) -> None:
    """A dead endpoint keeps the label where it is, in models.config and in the registry."""
    pipeline, (alive, dead) = replicas
    first, second = pipeline.promote(1), pipeline.promote(2)
    set_label(pipeline.deployment, "canary", first)
    assert answered(pipeline, label="canary") == {first}
    before = pipeline.live()
    dead.stop()
    pipeline.be_impatient()
    with pytest.raises(HotswapError, match=str(dead.grpc_port)):
        set_label(pipeline.deployment, "canary", second)
    assert pipeline.live()[1:] == before[1:]
    pipeline.settings = with_endpoints(pipeline.settings, (alive.rest_port, alive.grpc_port))
    assert answered(pipeline, label="canary") == {first}


def test_endpoints_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """URL and target, separated by a space, commas between endpoints; without any, the ports of the settings."""
    assert Settings().endpoints == (Endpoint("http://127.0.0.1:8501", "127.0.0.1:8500"),)
    monkeypatch.setenv("HOTSWAP_SERVING_ENDPOINTS", "http://a:8501 a:8500, https://b:8501/ b:8500,")
    assert load_settings().endpoints == (Endpoint("http://a:8501", "a:8500"), Endpoint("https://b:8501", "b:8500"))


@pytest.mark.parametrize("text", ["a:8501 a:8500", "http://a:8501", "http://a:8501 http://a:8500", "http://a a x"])
def test_an_endpoint_that_cannot_be_read_is_reported(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says how to write one."""
    monkeypatch.setenv("HOTSWAP_SERVING_ENDPOINTS", text)
    with pytest.raises(InvalidSettings, match=r"HOTSWAP_SERVING_ENDPOINTS=.*HOST:REST_PORT HOST:GRPC_PORT"):
        load_settings()
