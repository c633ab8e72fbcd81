"""The model server goes away, comes back or is slow while a version goes live."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.endpoints.live_server import LiveServer
from flows.promotion import labelling
from flows.promotion.labels import Labels
from flows.promotion.undo import PromotionUndone
from flows.promotion.verification import verify
from flows.reconciliation.repair import repair
from flows.reports.doctor import examine
from tests.faults.points import Point, after, at, before
from tests.faults.restartable import Restartable, model_server
from tests.pipelines import Pipeline, answered
from tests.ports import free_ports

SLOW_SECONDS = 1.5
SOAK = pytest.mark.soak


@pytest.fixture
def served(offline: Pipeline, tmp_path: Path) -> Iterator[tuple[Pipeline, Restartable]]:
    """A pipeline whose first version is live at a server in a process of its own."""
    rest_port, grpc_port = free_ports(2)
    ports = {"rest_port": rest_port, "grpc_port": grpc_port}
    offline.settings = offline.settings.model_copy(update=ports)
    server = model_server(offline.settings, tmp_path)
    try:
        assert offline.promote(1) == 1
        yield offline, server
    finally:
        server.kill()


def within(pipeline: Pipeline, seconds: float) -> None:
    """Give the server so many seconds (HOTSWAP_SERVER_TIMEOUT_SECONDS)."""
    pipeline.settings = pipeline.settings.model_copy(update={"server_timeout_seconds": seconds})


def assert_first_is_live(pipeline: Pipeline) -> None:
    """Server, disk, registry and journal agree about it, and the next promotion works."""
    assert repair(pipeline.deployment).remaining == ()
    assert answered(pipeline) == answered(pipeline, label="stable") == {1}
    assert pipeline.repository.versions(pipeline.model) == [1]
    assert pipeline.registry.aliases(pipeline.model) == {"champion": 1}
    within(pipeline, 30.0)
    assert answered(pipeline, version=pipeline.promote(3)) == {3}
    assert examine(pipeline.settings) == []


@pytest.mark.parametrize("point", [pytest.param(before(LiveServer.wait_available), marks=SOAK), before(labelling.move)])
def test_a_slow_server_is_waited_for(point: Point, served: tuple[Pipeline, Restartable]) -> None:
    """One that says nothing for a while, but less than HOTSWAP_SERVER_TIMEOUT_SECONDS, only makes it take longer."""
    pipeline, server = served

    def be_slow() -> None:
        server.pause()
        threading.Timer(SLOW_SECONDS, server.go_on).start()

    started = time.monotonic()
    with at(point, be_slow):
        version = pipeline.promote(2)
    assert time.monotonic() - started > SLOW_SECONDS
    assert answered(pipeline, label="stable") == {version}
    assert examine(pipeline.settings) == []


@pytest.mark.parametrize("point", [pytest.param(before(verify), marks=SOAK), after(Labels.write, 2)])
def test_a_server_that_stays_silent_undoes_a_promotion(point: Point, served: tuple[Pipeline, Restartable]) -> None:
    """After HOTSWAP_SERVER_TIMEOUT_SECONDS the version goes; once the server speaks, the one before is live."""
    pipeline, server = served
    within(pipeline, 1.0)
    try:
        with (
            at(point, server.pause),
            pytest.raises(PromotionUndone, match=f"{pipeline.settings.grpc_port}|{pipeline.settings.rest_port}"),
        ):
            pipeline.promote(2)
    finally:
        server.go_on()
    assert pipeline.repository.retired(pipeline.model) == [2]
    assert_first_is_live(pipeline)


@pytest.mark.parametrize("point", [before(LiveServer.wait_available), pytest.param(after(Labels.write, 2), marks=SOAK)])
def test_a_server_that_goes_away_undoes_a_promotion(point: Point, served: tuple[Pipeline, Restartable]) -> None:
    """Its next start finds the version before, with its label."""
    pipeline, server = served
    within(pipeline, 1.0)
    either = f"127.0.0.1:({pipeline.settings.rest_port}|{pipeline.settings.grpc_port})"
    with at(point, server.kill), pytest.raises(PromotionUndone, match=either):
        pipeline.promote(2)
    assert pipeline.repository.retired(pipeline.model) == [2]
    server.start()
    server.wait()
    assert_first_is_live(pipeline)


def test_a_server_that_starts_again_meanwhile_is_waited_for(served: tuple[Pipeline, Restartable]) -> None:
    """The new version is verified as soon as the server is back."""
    pipeline, server = served
    with at(before(LiveServer.wait_available), server.restart):
        version = pipeline.promote(2)
    assert answered(pipeline, label="stable") == answered(pipeline) == {version}
    assert answered(pipeline, version=1) == {1}
    assert examine(pipeline.settings) == []
