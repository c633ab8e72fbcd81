"""
Which trainings of this home have ended without closing their runs in MLflow?

A training holds the lock of ``<home>/trainings/<model>/<Prefect flow run>`` and removes the file when its run is
closed. The kernel frees the lock when the process ends, so a file that nobody locks is of a training that was killed,
or that could not reach MLflow any more; then the file says how it ended.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from flows.settings import Settings, prepare_home

if TYPE_CHECKING:
    from flows.registry import Registry


@contextmanager
def kept(settings: Settings, model: str, flow_run_id: str) -> Iterator[Path]:
    """
    Keep a file that says, for the block, that a training runs; whoever closes its run in MLflow removes it.

    Raises:
        InvalidSettings: The home cannot be written.
    """
    prepare_home(settings)
    path = _directory(settings) / model / flow_run_id
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path):
        yield path


def left(settings: Settings) -> dict[str, list[Path]]:
    """The files of the trainings that have left their runs open, by model."""
    found: dict[str, list[Path]] = {}
    for path in sorted(_directory(settings).glob("*/*")):
        try:
            with FileLock(path, timeout=0):
                found.setdefault(path.parent.name, []).append(path)
        except (Timeout, OSError):
            continue
    return found


def close(settings: Settings, registry: Registry, model: str) -> None:
    """
    Close the runs that trainings of `model` have left open.

    Raises:
        RegistryError: MLflow cannot be used.
    """
    for path in left(settings).get(model, []):
        registry.end_run_of(model, path.name, path.read_text("utf-8") or "KILLED")
        path.unlink(missing_ok=True)


def _directory(settings: Settings) -> Path:
    return settings.home.absolute() / "trainings"
