"""Temporary directories are gone with their block, and with the next one where a process was killed."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from flows.machine.workspaces import temporary_directory
from tests.faults.points import Point, after, at, before, killed_at
from tests.processes import finish, start

WORK_FOR_EVER = """
import signal
from flows.machine.workspaces import temporary_directory
with temporary_directory() as directory:
    (directory / "saved_model").mkdir()
    print(directory, flush=True)
    signal.pause()
"""
WORK_WITHOUT_FREE_FILES = """
import os, resource, tempfile
from flows.machine.workspaces import temporary_directory
tempfile.gettempdir()
free = os.dup(0)
os.close(free)
resource.setrlimit(resource.RLIMIT_NOFILE, (free, free))
try:
    with temporary_directory():
        pass
except OSError as exc:
    print(exc.strerror)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary directories are made here."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_it_is_gone_with_its_block(place: Path) -> None:
    with temporary_directory() as directory:
        (directory / "file").write_text("")
        assert directory.stat().st_mode & 0o077 == 0
    assert list(place.iterdir()) == []


@pytest.mark.usefixtures("place")
def test_what_a_killed_process_has_left_is_removed_by_the_next() -> None:
    """And nothing of one that still works."""
    with subprocess.Popen([sys.executable, "-c", WORK_FOR_EVER], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().strip())
        with temporary_directory():
            assert (left / "saved_model").is_dir()
        process.send_signal(signal.SIGKILL)
    assert (left / "saved_model").is_dir()
    with temporary_directory() as directory:
        assert not left.exists()
        assert directory.is_dir()


def work_in(directory: Path) -> None:
    tempfile.tempdir = str(directory)
    with temporary_directory():
        pass


@pytest.mark.parametrize(
    "point",
    [after(tempfile.mkdtemp), before(fcntl.flock), after(fcntl.flock)],
    ids=["once made", "before it is locked", "once locked"],
)
def test_what_was_left_by_a_process_that_was_killed_at_its_start_is_removed_too(point: Point, tmp_path: Path) -> None:
    killed_at(point, work_in, tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    assert finish(start(work_in, tmp_path)) == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("point", [after(tempfile.mkdtemp), before(fcntl.flock)], ids=["before it is opened", "after"])
def test_one_that_is_removed_before_it_is_locked_is_made_again(point: Point, place: Path) -> None:
    """A process that comes just then takes it for abandoned."""
    with at(point, lambda: work_in(place)), temporary_directory() as directory:
        assert list(place.iterdir()) == [directory]
    assert list(place.iterdir()) == []


def test_nothing_is_left_where_it_cannot_be_locked(place: Path) -> None:
    """Here, as the process may open no more files."""
    command = [sys.executable, "-c", WORK_WITHOUT_FREE_FILES]
    assert subprocess.check_output(command, text=True) == f"{os.strerror(errno.EMFILE)}\n"
    assert list(place.iterdir()) == []


def test_nothing_else_is_removed(place: Path) -> None:
    """Such as a home or a clone that somebody keeps there, or a link under such a name."""
    kept = [
        place / name for name in (".hotswap", ".hotswap-old", "hotswap", "hotswap-demo-a1b2c3d4", ".hotswap-tmp-mine")
    ]
    for directory in kept:
        directory.mkdir()
    link = place / ".hotswap-tmp-a1b2c3d4"
    link.symlink_to(kept[0])
    with temporary_directory():
        pass
    assert {*place.iterdir()} == {*kept, link}
    assert link.readlink() == kept[0]
