"""Temporary directories are gone with their block, and with the next one where a process was killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from flows.machine.workspaces import temporary_directory

WORK_FOR_EVER = """
import signal
from flows.machine.workspaces import temporary_directory
with temporary_directory() as directory:
    (directory / "saved_model").mkdir()
    print(directory, flush=True)
    signal.pause()
"""


@pytest.fixture(autouse=True)
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
