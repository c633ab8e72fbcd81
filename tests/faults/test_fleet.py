"""Hosts of a fleet come to grief: one is slow, one dies, one has a full disk, and none serves half a change."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from flows.promotion.undo import PromotionUndone
from flows.reconciliation.findings import find
from flows.registry.fleet_registry import RegisteredFiles
from flows.registry.mlflow_registry import Registry
from tests.faults.points import after
from tests.faults.proxy import Proxy, proxied
from tests.faults.test_full_disk import fill, small_disk
from tests.fleet import Host, hosts
from tests.pipelines import Pipeline
from tests.waiting import until

pytestmark = pytest.mark.xdist_group("mlflow-server")  # one worker starts the MLflow server
__all__ = ["small_disk"]


@pytest.fixture
def shared(offline: Pipeline, mlflow_url: str, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """A model whose MLflow gives its files to whoever reaches it."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_url)
    offline.registry = Registry(offline.settings.home / "artifacts")
    offline.begin_anew()
    return offline


@pytest.fixture
def way(mlflow_url: str) -> Iterator[Proxy]:
    """The way to MLflow of the slow host."""
    with proxied(int(mlflow_url.rpartition(":")[2])) as proxy:
        yield proxy


def test_one_host_is_slow_one_dies_and_one_is_full(
    shared: Pipeline, model_server: Any, way: Proxy, small_disk: Path, tmp_path: Path
) -> None:
    """
    No label moves before every host has the version, and none where one cannot have it; then all of them go on.

    The slow host is waited for, the one that was killed goes on with the files that it has, and the full disk is told.
    """
    with hosts(shared, model_server, [tmp_path / "slow", tmp_path / "dying", small_disk]) as found:
        slow, dying, full = found
        slow.restart(MLFLOW_TRACKING_URI=f"http://127.0.0.1:{way.port}")
        first = shared.promote(1)
        assert_live(found, shared.model, first)
        dying.stop()
        dying.start(dies_at=after(RegisteredFiles.download, 2))
        way.pause()
        with ThreadPoolExecutor(1) as pool:
            promotion = pool.submit(shared.promote, 2)
            dying.wait_killed()
            assert len(dying.staged(shared.model)) == 2
            until(lambda: full.versions(shared.model) == [first, first + 1])
            assert_live(found, shared.model, first)
            dying.start()
            until(lambda: dying.versions(shared.model) == [first, first + 1])
            assert not promotion.done()
            way.go_on()
            second = promotion.result()
        assert_live(found, shared.model, second)
        fill(full.directory)
        with pytest.raises(PromotionUndone, match=f"{full.settings.rest_port}.*No room is left in {full.directory}"):
            shared.promote(3)
        assert_live(found, shared.model, second)
        assert [host.versions(shared.model) for host in found] == [[first, second]] * 3
        assert find(shared.deployment) == []
        (full.directory / ".ballast").unlink()
        assert_live(found, shared.model, shared.promote(4))


def assert_live(found: list[Host], model: str, version: int) -> None:
    """Every host answers with this version to whoever asks for the stable one."""
    assert [host.answered(model, label="stable") for host in found] == [{version}] * len(found)
