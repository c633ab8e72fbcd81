"""Many promotions of one model at a time: one lock, a number each, one history."""

from __future__ import annotations

import ctypes
import shutil
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
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
from tests.faults.points import dying_at, finish, start
from tests.faults.restartable import mlflow_server
from tests.pipelines import Pipeline, answered

THREADS = 4
PROMOTIONS_EACH = 5
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


def test_twenty_promotions_at_once_follow_one_another(pipeline: Pipeline) -> None:
    """From four threads: no number twice, none left out, no update lost; journal, label and alias end at the last."""
    begin = threading.Barrier(THREADS)

    def promote(kind: int) -> list[int]:
        begin.wait(30)
        return [pipeline.promote(kind) for _ in range(PROMOTIONS_EACH)]

    with ThreadPoolExecutor(THREADS) as pool:
        versions = [version for each in pool.map(promote, range(1, THREADS + 1)) for version in each]
    assert len(versions) == THREADS * PROMOTIONS_EACH
    assert_one_history(pipeline, versions)


def copied(source: Path, directory: Path, _: int, name: str) -> Path:
    return Path(shutil.copytree(source, directory / name))


def promote_on(host: str, settings: Settings, model: str, source: Path) -> None:
    """Promote `source` several times, as the trainings of one host do."""
    # Where this is not permitted, both hosts have one name, and only their users differ.
    if ctypes.CDLL(None).unshare(CLONE_NEWUTS) == 0:
        socket.sethostname(host)
    registry = Registry(settings.home / "artifacts")
    pipeline = Pipeline(settings, registry, model, partial(copied, source), settings.home)
    for _ in range(PROMOTIONS_EACH):
        pipeline.promote(1)


@pytest.fixture
def shared(pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipeline]:
    """A pipeline whose MLflow other hosts reach too."""
    (tmp_path / "mlflow").mkdir()
    server = mlflow_server(tmp_path / "mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    try:
        pipeline.registry = Registry(pipeline.settings.home / "artifacts")
        pipeline.begin_anew()
        yield pipeline
    finally:
        server.kill()


def hosts(pipeline: Pipeline, alpha_dies_at: str = "") -> list[int | None]:
    """Exit codes of two hosts with homes of their own, that promote into one repository at the same time."""
    source = pipeline.sources(pipeline.directory / "source", 1, "saved_model")
    processes = []
    for host in HOSTS:
        settings = pipeline.settings.model_copy(update={"home": pipeline.directory / host})
        settings.home.mkdir()
        work: tuple[Any, ...] = (promote_on, host, settings, pipeline.model, source)
        if alpha_dies_at and host == HOSTS[0]:
            work = (dying_at, alpha_dies_at, work[0], work[1:])
        processes.append(start(*work, LOGNAME=host, HOTSWAP_HOME=str(settings.home)))
    return [finish(process) for process in processes]


def test_two_hosts_share_a_repository(shared: Pipeline) -> None:
    """Their promotions follow one another, in one journal that says who did what."""
    assert hosts(shared) == [0, 0]
    assert_one_history(shared, range(1, 2 * PROMOTIONS_EACH + 1))
    assert {entry.who.partition("@")[0] for entry in shared.journal.read()} == set(HOSTS)


def test_a_host_that_dies_in_a_promotion_does_not_stop_the_other(shared: Pipeline) -> None:
    """Its lock is free at once, the other tidies what it left, and goes on with numbers of its own."""
    assert hosts(shared, alpha_dies_at="after serving.repository.store:Repository.publish 2") == [-signal.SIGKILL, 0]
    repair(shared.deployment)
    assert examine(shared.settings) == []
    entries = shared.journal.read()
    published = [entry.version for entry in entries if entry.action == "publish" and entry.version is not None]
    assert published == sorted({*published})
    assert len(published) == PROMOTIONS_EACH + 2
    (undone,) = [entry.version for entry in entries if entry.action == "undo"]
    assert shared.repository.versions(shared.model) == [version for version in published if version != undone]
    assert answered(shared, label="stable") == {max(shared.repository.versions(shared.model))}
