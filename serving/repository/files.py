"""Reads and writes directories and files so that a crash leaves the old state or the new one."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path


def write_atomically(path: Path, text: str) -> None:
    """Write `path` so that it holds the old text or the new, also after a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        os.replace(temporary, path)  # noqa: PTH105  (a str from mkstemp)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)  # noqa: PTH108
        raise
    fsync(path.parent)


def directory_names(directory: Path) -> set[str]:
    """The directories in a directory; none where it is missing."""
    try:
        return {entry.name for entry in os.scandir(directory) if entry.is_dir()}
    except (FileNotFoundError, NotADirectoryError):
        return set()


def version_directories(directory: Path) -> list[int]:
    """The directories that are versions, lowest first."""
    # int() alone would take '1_000', '+7' and other scripts' digits; we only ever write plain ones.
    names = (name for name in directory_names(directory) if name.isascii() and name.isdecimal())
    return sorted(int(name) for name in names if name == str(int(name)))


def copy_tree(source: Path, target: Path) -> None:
    """Copy a directory up to the first error."""
    # shutil.copytree would continue after the first error and collect them all.
    target.mkdir(parents=True)
    for path in sorted(source.rglob("*")):
        copy = target / path.relative_to(source)
        if path.is_dir():
            copy.mkdir()
        else:
            shutil.copyfile(path, copy)


def fsync_tree(root: Path) -> None:
    """Have everything below a directory on disk."""
    for directory, _, files in os.walk(root, topdown=False):
        for name in files:
            fsync(Path(directory, name))
        fsync(Path(directory))


def fsync(path: Path) -> None:
    """Have a file or a directory on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_empty(directory: Path) -> None:
    """Remove a directory, unless there is something in it."""
    with suppress(OSError):
        directory.rmdir()
