"""A disk that fills up while a version goes live costs that version, and nothing that was there."""

from __future__ import annotations

import ctypes
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flows.promotion.labels import Labels
from flows.promotion.retention import tidy, tidy_after_promotion
from flows.promotion.undo import PromotionUndone
from flows.reconciliation.findings import find
from flows.reconciliation.repair import repair
from flows.reports.doctor import examine
from serving.protocol.errors import HotswapError
from serving.repository.store import Repository
from tests.faults.points import Point, at, before
from tests.pipelines import Pipeline, answered

BIG_BYTES = 33 << 20
MAX_FILE_BYTES = 32 << 20
DISK_BYTES = 2 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    libc, path = ctypes.CDLL(None, use_errno=True), tmp_path / "disk"
    path.mkdir()
    if libc.mount(b"tmpfs", str(path).encode(), b"tmpfs", 0, f"size={DISK_BYTES}".encode()):
        pytest.skip(f"a file system cannot be mounted here: {os.strerror(ctypes.get_errno())}")
    yield path
    libc.umount2(str(path).encode(), 2)  # MNT_DETACH: whatever still has a file open there


@pytest.fixture
def limited() -> Iterator[Callable[[], None]]:
    """Call it, and the kernel refuses whatever would make a file larger than 32 MB (EFBIG)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_FILE_BYTES, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def fill(disk: Path) -> Path:
    """Write a file until there is no room for one byte more."""
    path = disk / ".ballast"
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return path


def assert_nothing_new(pipeline: Pipeline) -> None:
    """The first version is live, nothing is staged or retired, and all sides agree."""
    repository = pipeline.repository
    assert (repository.versions(pipeline.model), repository.retired(pipeline.model)) == ([1], [])
    assert not list((repository.root / ".staging").glob("*"))
    assert answered(pipeline) == answered(pipeline, label="stable") == {1}
    assert find(pipeline.deployment) == []


def test_a_file_that_does_not_fit_ends_a_promotion(
    pipeline: Pipeline, limited: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 1 and one sentence with the way out; with room again the next promotion works."""
    assert pipeline.promote(1) == 1
    tiny = pipeline.sources

    def big(directory: Path, kind: int, name: str) -> Path:
        source: Path = tiny(directory, kind, name)
        (source / "assets.extra").mkdir(exist_ok=True)
        (source / "assets.extra" / "big").write_bytes(bytes(BIG_BYTES))
        return source

    monkeypatch.setattr(pipeline, "sources", big)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with (
        at(before(Repository.stage), limited),
        pytest.raises(HotswapError, match=r"No room is left in .*: free some space there") as caught,
    ):
        pipeline.promote(2)
    assert not hasattr(caught.value, "exit_code")  # 1: it was never visible, so nothing had to be undone
    assert_nothing_new(pipeline)
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert answered(pipeline, version=pipeline.promote(3)) == {3}


@pytest.mark.parametrize(
    ("point", "taken_out"),
    [
        pytest.param(before(Repository.stage), False, id="staging"),
        pytest.param(before(Labels.write), True, id="config"),
        pytest.param(before(Labels.write, 2), True, id="label"),
    ],
)
def test_a_full_disk_undoes_a_promotion(
    point: Point, taken_out: bool, pipeline: Pipeline, small_disk: Path, tmp_path: Path
) -> None:
    """Wherever it fills up, what was live stays live; `doctor` tells it, and with room again the next one works."""
    pipeline.settings = pipeline.settings.model_copy(update={"models_repo": small_disk / "models"})
    assert pipeline.promote(1) == 1
    assert examine(pipeline.settings) == []
    with (
        at(point, lambda: fill(small_disk)),
        pytest.raises(HotswapError, match="No room is left") as caught,
    ):
        pipeline.promote(2)
    assert isinstance(caught.value, PromotionUndone) is taken_out
    assert answered(pipeline, label="stable") == {1}
    assert pipeline.repository.versions(pipeline.model) == [1]
    assert any("is nearly full: 0 MB are free" in finding.what for finding in examine(pipeline.settings))
    (small_disk / ".ballast").unlink()
    assert repair(pipeline.deployment).remaining == ()
    assert answered(pipeline) == answered(pipeline, label="stable") == {1}
    version = pipeline.promote(3)
    assert version > 2
    assert answered(pipeline, label="stable") == {version}
    assert examine(pipeline.settings) == []


def test_retention_that_fails_does_not_fail_the_promotion(pipeline: Pipeline, caplog: pytest.LogCaptureFixture) -> None:
    """The old version stays, the log has the command to repeat, and nothing else is different."""
    for kind in (1, 2):
        pipeline.promote(kind)
    pipeline.settings = pipeline.settings.model_copy(update={"keep_versions": 1})
    obstacle = pipeline.repository.retired_path(pipeline.model, 1).parent
    obstacle.parent.mkdir(exist_ok=True)
    obstacle.write_text("where retired versions go")
    before = pipeline.live()
    tidy_after_promotion(pipeline.deployment)
    assert f"repeat `hotswap tidy {pipeline.model}`" in caplog.text
    assert pipeline.live() == before
    assert answered(pipeline) == answered(pipeline, label="stable") == {2}
    assert find(pipeline.deployment) == []
    obstacle.unlink()
    assert tidy(pipeline.deployment).retired == (1,)
