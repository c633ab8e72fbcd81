"""MLflow goes away before, while and after a version goes live: one sentence, nothing half done, and a way on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flows import drift, promotion
from flows.cli import run
from flows.registry import Registry, RegistryError
from serving.errors import HotswapError
from tests.faults.mlflow_process import MlflowProcess
from tests.faults.points import at, environment
from tests.flows.conftest import Pipeline, mlflow_home, offline, pipeline
from tests.flows.test_promotion import answered

__all__ = ["mlflow_home", "offline", "pipeline"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowProcess]:
    server = MlflowProcess(tmp_path_factory.mktemp("mlflow"))
    yield server
    server.kill()


@pytest.fixture
def remote(pipeline: Pipeline, server: MlflowProcess, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """A pipeline whose first version is live, with MLflow in other processes."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    pipeline.registry = Registry(pipeline.settings.home / "artifacts")
    pipeline.begin_anew()
    assert pipeline.promote(1) == 1
    return pipeline


@pytest.mark.parametrize(
    ("point", "code", "retired"),
    [
        pytest.param("before flows.promotion:highest_version_seen", 1, [], id="before registering"),
        pytest.param("after flows.registry:Registry.register", 1, [], id="after registering"),
        pytest.param("after flows.promotion:publish", 5, [2], id="published"),
        pytest.param("before flows.registry:Registry.set_alias", 5, [2], id="before the alias"),
        pytest.param("after flows.registry:Registry.set_alias", 5, [2], id="after the alias"),
    ],
)
def test_a_promotion_without_mlflow_is_undone(
    point: str, code: int, retired: list[int], remote: Pipeline, server: MlflowProcess
) -> None:
    """What was live stays live, the message names MLflow's address; with MLflow back, running again works."""
    with (
        at(point, server.kill),
        pytest.raises(HotswapError, match=f"MLflow at {server.uri} cannot be used") as caught,
    ):
        remote.promote(2)
    try:
        assert getattr(caught.value, "exit_code", 1) == code
        assert "\n" not in str(caught.value)
        assert answered(remote) == answered(remote, label="stable") == {1}
        assert (remote.repository.versions(remote.model), remote.repository.retired(remote.model)) == ([1], retired)
        assert not list((remote.repository.root / ".staging").glob("*"))
    finally:
        server.start()
    assert drift.repair(remote.settings, remote.model).left == ()
    assert drift.find(remote.settings, remote.model) == []
    assert remote.registry.aliases(remote.model) == {"champion": 1}
    version = remote.promote(3)
    assert version > 1
    assert answered(remote, label="stable") == {version}
    assert remote.registry.aliases(remote.model) == {"champion": version}
