"""MLflow goes away before, while and after a version goes live: one sentence, nothing half done, and a way on."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from flows.promotion import promotion
from flows.promotion.deployment import Deployment
from flows.promotion.rollback import rollback
from flows.promotion.undo import PromotionUndone
from flows.reconciliation.findings import find
from flows.reconciliation.repair import repair
from flows.registry.mlflow_registry import Registry
from flows.registry.reader import RegistryUnread, read_registry
from flows.reports.doctor import examine
from serving.protocol.errors import HotswapError
from tests.faults.points import Point, after, at, before, environment
from tests.faults.proxy import Proxy, proxied
from tests.pipelines import Pipeline, answered
from tests.processes import hotswap

SOAK = pytest.mark.soak
pytestmark = pytest.mark.xdist_group("mlflow-server")  # one worker starts the server


@pytest.fixture(scope="module")
def way(mlflow_url: str) -> Iterator[Proxy]:
    """The way to the MLflow server."""
    with proxied(int(mlflow_url.rpartition(":")[2])) as proxy:
        yield proxy


@pytest.fixture
def remote(pipeline: Pipeline, way: Proxy, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """A pipeline whose first version is live, with MLflow in other processes."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address(way))
    pipeline.registry = Registry(pipeline.settings.home / "artifacts")
    pipeline.begin_anew()
    assert pipeline.promote(1) == 1
    # Several of the connections that MLflow's client keeps may have been closed by its server when it needs them.
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "4")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    return pipeline


def address(way: Proxy) -> str:
    return f"http://127.0.0.1:{way.port}"


@pytest.mark.parametrize(
    ("point", "code", "retired"),
    [
        pytest.param(before(Deployment.highest_version_seen), 1, [], marks=SOAK, id="before registering"),
        pytest.param(after(Registry.register), 1, [], id="after registering"),
        pytest.param(after(promotion.publish), 5, [2], marks=SOAK, id="published"),
        pytest.param(before(Registry.set_alias), 5, [2], marks=SOAK, id="before the alias"),
        pytest.param(after(Registry.set_alias), 5, [2], id="after the alias"),
    ],
)
def test_a_promotion_without_mlflow_is_undone(
    point: Point, code: int, retired: list[int], remote: Pipeline, way: Proxy
) -> None:
    """What was live stays live, the message names MLflow's address; with MLflow back, running again works."""
    with (
        at(point, way.cut),
        pytest.raises(HotswapError, match=f"MLflow at {address(way)} cannot be used") as caught,
    ):
        remote.promote(2)
    try:
        assert getattr(caught.value, "exit_code", 1) == code
        assert "\n" not in str(caught.value)
        assert answered(remote) == answered(remote, label="stable") == {1}
        assert (remote.repository.versions(remote.model), remote.repository.retired(remote.model)) == ([1], retired)
        assert not list((remote.repository.root / ".staging").glob("*"))
    finally:
        way.mend()
    wait_read(remote.model)
    assert repair(remote.deployment).remaining == ()
    assert find(remote.deployment) == []
    assert remote.registry.aliases(remote.model) == {"champion": 1}
    version = remote.promote(3)
    assert version > 1
    assert answered(remote, label="stable") == {version}
    assert remote.registry.aliases(remote.model) == {"champion": version}


def test_mlflow_that_takes_connections_and_says_nothing_undoes_a_promotion(
    remote: Pipeline, way: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the seconds of ``MLFLOW_HTTP_REQUEST_TIMEOUT`` it counts as gone."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    try:
        with (
            at(before(Registry.set_alias), way.pause),
            pytest.raises(PromotionUndone, match=r"timeout|timed out"),
        ):
            remote.promote(2)
        assert answered(remote) == answered(remote, label="stable") == {1}
    finally:
        way.go_on()
    assert repair(remote.deployment).remaining == ()
    assert remote.registry.aliases(remote.model) == {"champion": 1}


def wait_read(model: str) -> None:
    """Return when an earlier failure to read MLflow is no longer remembered."""
    deadline = time.monotonic() + 30
    while True:
        try:
            read_registry(model)
        except RegistryUnread:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return


def test_a_rollback_does_not_wait_for_mlflow(remote: Pipeline, way: Proxy) -> None:
    """The way back works without it, `doctor` tells that it is away, and `reconcile` moves the alias later."""
    assert remote.promote(2) == 2
    way.cut()
    try:
        assert rollback(remote.deployment).version == 1
        assert answered(remote) == answered(remote, label="stable") == {1}
        assert any(f"MLflow at {address(way)} cannot be read" in finding.what for finding in examine(remote.settings))
    finally:
        way.mend()
    wait_read(remote.model)
    assert remote.registry.aliases(remote.model) == {"champion": 2}
    assert repair(remote.deployment).remaining == ()
    assert remote.registry.aliases(remote.model) == {"champion": 1}
    assert examine(remote.settings) == []


def test_a_training_without_mlflow_does_not_begin(remote: Pipeline, way: Proxy, prefect_api: str) -> None:
    """Exit code 1 and one sentence, before anything is trained; a run would have nowhere to be recorded."""
    before = remote.live()
    way.cut()
    try:
        done = hotswap({**os.environ, **environment(remote.settings), "PREFECT_API_URL": prefect_api}, "train", "iris")
    finally:
        way.mend()
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith(f"hotswap: MLflow at {address(way)} cannot be used")
    assert "training epoch" not in done.stderr
    assert "Traceback" not in done.stderr
    assert remote.live() == before
