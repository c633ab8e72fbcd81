"""
Which trainings of this home were killed, so that their runs in MLflow were never closed?

A training holds the lock of ``<home>/trainings/<model>/<Prefect flow run>`` until its run is closed. The kernel frees
the lock when the process ends, so a file that nobody locks is of a training that was killed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from flows.settings import Settings

if TYPE_CHECKING:
    from flows.registry import Registry


@contextmanager
def kept(settings: Settings, model: str, flow_run_id: str) -> Iterator[Path]:
    """Keep, for the block, that a training runs; whoever closes its run in MLflow removes the file."""
    path = _directory(settings) / model / flow_run_id
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path):
        yield path


def killed(settings: Settings) -> dict[str, list[Path]]:
    """The files of the killed trainings, by model."""
    found: dict[str, list[Path]] = {}
    for path in sorted(_directory(settings).glob("*/*")):
        try:
            with FileLock(path, timeout=0):
                found.setdefault(path.parent.name, []).append(path)
        except (Timeout, OSError):
            continue
    return found


def close_killed(settings: Settings, registry: Registry, model: str) -> None:
    """
    Close the runs of the killed trainings of `model` in MLflow.

    Raises:
        RegistryError: MLflow cannot be used.
    """
    for path in killed(settings).get(model, []):
        registry.end_killed_run(model, path.name)
        path.unlink(missing_ok=True)


def _directory(settings: Settings) -> Path:
    return settings.home.absolute() / "trainings"
