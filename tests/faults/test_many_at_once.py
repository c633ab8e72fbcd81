"""Many promotions of one model at a time: one lock, a number each, one history."""

from __future__ import annotations

import ctypes
import shutil
import signal
import socket
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from flows.promotion.history import replay
from flows.reconciliation.repair import repair
from flows.registry.mlflow_registry import Registry
from flows.reports.doctor import examine
from flows.settings import Settings
from serving.repository.store import Repository
from tests.faults.points import Point, after, dying_at
from tests.pipelines import Pipeline, answered
from tests.processes import finish, start

pytestmark = pytest.mark.xdist_group("mlflow-server")  # one worker starts the MLflow server

THREADS = 4
HOSTS = ("alpha", "beta")
CLONE_NEWUTS = 0x04000000


def assert_one_history(pipeline: Pipeline, versions: Sequence[int]) -> None:
    """Each promotion has its number and follows the one before, and all sides agree about the last."""
    entries = [entry for entry in pipeline.journal.read() if entry.action in ("publish", "promote")]
    assert sorted(versions) == list(range(1, len(versions) + 1))
    numbers = [entry.version for entry in entries]
    assert numbers == [version for version in sorted(versions) for _ in ("publish", "promote")]
    promoted = [entry for entry in entries if entry.action == "promote"]
    assert [entry.facts.get("previous") for entry in promoted] == [None, *sorted(versions)[:-1]]
    last = max(versions)
    assert replay(entries).labels == {"stable": last}
    assert answered(pipeline) == answered(pipeline, label="stable") == {last}
    assert pipeline.registry.aliases(pipeline.model) == {"champion": last}
    assert pipeline.registry.versions(pipeline.model) == sorted(versions)
    assert examine(pipeline.settings) == []


@pytest.fixture(scope="module")
def each(soak: bool) -> int:
    """How often everybody promotes."""
    return 5 if soak else 2


def test_promotions_at_once_follow_one_another(pipeline: Pipeline, each: int) -> None:
    """From four threads: no number twice, none left out, no update lost; journal, label and alias end at the last."""
    begin = threading.Barrier(THREADS)

    def promote(kind: int) -> list[int]:
        begin.wait(30)
        return [pipeline.promote(kind) for _ in range(each)]

    with ThreadPoolExecutor(THREADS) as pool:
        versions = [version for found in pool.map(promote, range(1, THREADS + 1)) for version in found]
    assert len(versions) == THREADS * each
    assert_one_history(pipeline, versions)


def copied(source: Path, directory: Path, _: int, name: str) -> Path:
    return Path(shutil.copytree(source, directory / name))


def promote_on(host: str, settings: Settings, model: str, source: Path, times: int) -> None:
    """Promote `source` several times, as the trainings of one host do."""
    # Where this is not permitted, both hosts have one name, and only their users differ.
    if ctypes.CDLL(None).unshare(CLONE_NEWUTS) == 0:
        socket.sethostname(host)
    registry = Registry(settings.home / "artifacts")
    pipeline = Pipeline(settings, registry, model, partial(copied, source), settings.home)
    for _ in range(times):
        pipeline.promote(1)


@pytest.fixture
def shared(pipeline: Pipeline, mlflow_url: str, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """A pipeline whose MLflow other hosts reach too."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_url)
    pipeline.registry = Registry(pipeline.settings.home / "artifacts")
    pipeline.begin_anew()
    return pipeline


def hosts(pipeline: Pipeline, times: int, alpha_dies_at: Point | None = None) -> list[int | None]:
    """Exit codes of two hosts with homes of their own, that promote into one repository at the same time."""
    source = pipeline.sources(pipeline.directory / "source", 1, "saved_model")
    processes = []
    for host in HOSTS:
        settings = pipeline.settings.model_copy(update={"home": pipeline.directory / host})
        settings.home.mkdir()
        work: tuple[Any, ...] = (promote_on, host, settings, pipeline.model, source, times)
        if alpha_dies_at and host == HOSTS[0]:
            work = (dying_at, alpha_dies_at, work[0], work[1:])
        processes.append(start(*work, LOGNAME=host, HOTSWAP_HOME=str(settings.home)))
    return [finish(process) for process in processes]


def test_two_hosts_share_a_repository(shared: Pipeline, each: int) -> None:
    """Their promotions follow one another, in one journal that says who did what."""
    assert hosts(shared, each) == [0, 0]
    assert_one_history(shared, range(1, 2 * each + 1))
    assert {entry.who.partition("@")[0] for entry in shared.journal.read()} == set(HOSTS)


def test_a_host_that_dies_in_a_promotion_does_not_stop_the_other(shared: Pipeline, each: int) -> None:
    """Its lock is free at once, the other tidies what it left, and goes on with numbers of its own."""
    assert hosts(shared, each, alpha_dies_at=after(Repository.publish, 2)) == [-signal.SIGKILL, 0]
    repair(shared.deployment)
    assert examine(shared.settings) == []
    entries = shared.journal.read()
    published = [entry.version for entry in entries if entry.action == "publish" and entry.version is not None]
    assert published == sorted({*published})
    assert len(published) == each + 2
    (undone,) = [entry.version for entry in entries if entry.action == "undo"]
    assert shared.repository.versions(shared.model) == [version for version in published if version != undone]
    assert answered(shared, label="stable") == {max(shared.repository.versions(shared.model))}
