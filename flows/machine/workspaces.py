"""
Makes temporary directories for a block; what a process that was killed has left of its own, the next one removes.

Each is locked for as long as its block takes, so one without a lock belongs to nobody any more.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from serving.protocol.errors import HotswapError

_PREFIX = ".hotswap-tmp-"
_NAME = re.compile(re.escape(_PREFIX) + "[a-z0-9_]{8}")


@contextmanager
def temporary_directory() -> Iterator[Path]:
    """An empty directory that only this user can read."""
    _remove_abandoned(Path(tempfile.gettempdir()))
    directory, descriptor = _locked_directory()
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(descriptor)


@contextmanager
def workspace() -> Iterator[Path]:
    """A temporary directory that no message names, as it is gone when the message is read: paths are relative to it."""
    with temporary_directory() as directory:
        try:
            yield directory
        except HotswapError as exc:
            exc.args = tuple(without(directory, each) if isinstance(each, str) else each for each in exc.args)
            raise


def without(directory: Path | str, text: str) -> str:
    """`text` with paths below `directory` relative to it."""
    return text.replace(f"{directory}/", "").replace(str(directory), "the workspace")


def still_there(path: str) -> str:
    """`path`, or the nearest directory above it that has not gone meanwhile."""
    where = Path(path)
    return path if where.parent.exists() else str(next(each for each in where.parents if each.exists()))


def _locked_directory() -> tuple[Path, int]:
    """A new directory and the descriptor that locks it; another process may have removed one before it was locked."""
    directory = Path(tempfile.mkdtemp(prefix=_PREFIX))
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except FileNotFoundError:
        return _locked_directory()
    except OSError:
        directory.rmdir()
        raise
    with suppress(OSError):  # where directories cannot be locked, none is taken for abandoned either
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    if directory.exists():
        return directory, descriptor
    os.close(descriptor)
    return _locked_directory()


def _remove_abandoned(place: Path) -> None:
    with suppress(OSError):
        with os.scandir(place) as entries:  # thousands, of others
            found = [Path(entry) for entry in entries if entry.name.startswith(_PREFIX) and _NAME.fullmatch(entry.name)]
        for directory in found:
            with suppress(OSError):  # another's, or another process removes it now
                _remove_unlocked(directory)


def _remove_unlocked(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(descriptor).st_uid == os.getuid():
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(directory, ignore_errors=True)
    finally:
        os.close(descriptor)
