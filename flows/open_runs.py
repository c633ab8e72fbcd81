"""
Which trainings of this home have ended without closing their runs in MLflow?

A training holds the lock of ``<home>/trainings/<model>/<Prefect flow run>`` and removes the file when its run is
closed. The kernel frees the lock when the process ends, so a file that nobody locks is of a training that was killed,
or that could not reach MLflow any more; then the file says how it ended. Prefect would call such a run running for
ever, so once MLflow has been told, Prefect is told as soon as it answers.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from flows.launch import find_running_prefect
from flows.settings import Settings, prepare_home

if TYPE_CHECKING:
    from flows.registry import Registry

log = logging.getLogger(__name__)


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
        killed = _killed(settings) / path.name
        killed.parent.mkdir(parents=True, exist_ok=True)
        path.replace(killed)
    tell_prefect(settings)


def still_running(settings: Settings) -> list[str]:
    """The flow runs of trainings that have gone and that Prefect, where it answers, still calls running."""
    killed = sorted(path.name for path in _killed(settings).glob("*"))
    if not killed or not find_running_prefect(settings):
        return []
    from flows import prefect_access

    return [flow_run for flow_run in killed if prefect_access.is_running(flow_run)]


def tell_prefect(settings: Settings) -> None:
    """Let Prefect know which trainings have gone; those that it cannot be told yet are kept for the next time."""
    if not any(_killed(settings).glob("*")) or not find_running_prefect(settings):
        return
    from flows import prefect_access

    for path in sorted(_killed(settings).glob("*")):
        try:
            prefect_access.end_run(path.name)
        except prefect_access.PrefectUnavailable as exc:
            log.warning("flow run not ended flow_run=%s error=%s", path.name, exc)
            return
        path.unlink(missing_ok=True)


def _killed(settings: Settings) -> Path:
    return settings.home.absolute() / "killed_flow_runs"


def _directory(settings: Settings) -> Path:
    return settings.home.absolute() / "trainings"
