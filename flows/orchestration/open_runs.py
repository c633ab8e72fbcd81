"""
Tracks the flow runs of this home, to find those that have ended without closing their runs in MLflow or Prefect.

A training holds the lock of ``<home>/trainings/<model>/<Prefect flow run>`` and removes the file when its run is
closed in MLflow. The kernel frees the lock when the process ends, so a file that nobody locks is of a training that was
killed, or that could not reach MLflow any more; in the second case the file says how it ended.

In the same way every flow holds ``<home>/flow_runs/<Prefect flow run>`` while it runs. Prefect would show one that was
killed as running for ever, so its run is ended there as soon as Prefect answers.
"""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from flows.orchestration.prefect_server import find_running_prefect
from flows.settings import Settings, prepare_home

if TYPE_CHECKING:
    from flows.registry.mlflow_registry import Registry

log = logging.getLogger(__name__)

_FLOW_RUNS = "flow_runs"


@contextmanager
def tracked_run(settings: Settings, model: str, flow_run_id: str) -> Iterator[Path]:
    """
    Track a training during the block by a locked file; whoever closes its run in MLflow removes the file.

    Raises:
        InvalidSettings: The home cannot be written.
    """
    prepare_home(settings)
    path = _directory(settings) / model / flow_run_id
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path):
        yield path


def orphaned_runs(settings: Settings) -> dict[str, list[Path]]:
    """By model, the files of the trainings that have ended without closing their runs."""
    found: dict[str, list[Path]] = {}
    for path in sorted(_directory(settings).glob("*/*")):
        if _is_free(path):
            found.setdefault(path.parent.name, []).append(path)
    return found


def close(settings: Settings, registry: Registry, model: str) -> None:
    """
    Close the orphaned runs of `model`.

    Raises:
        RegistryError: MLflow cannot be used.
    """
    for path in orphaned_runs(settings).get(model, []):
        registry.end_run_of(model, path.name, path.read_text("utf-8") or "KILLED")
        gone = _flow_runs(settings) / path.name
        gone.parent.mkdir(parents=True, exist_ok=True)
        path.replace(gone)
    end_in_prefect(settings)


@contextmanager
def followed(settings: Settings, flow_run_id: str) -> Iterator[None]:
    """
    Track a flow run during the block by a locked file.

    Raises:
        InvalidSettings: The home cannot be written.
    """
    prepare_home(settings)
    path = _flow_runs(settings) / flow_run_id
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path):
        yield
        path.unlink(missing_ok=True)


def still_running(settings: Settings) -> list[str]:
    """
    The flow runs whose processes have gone and that Prefect, where it answers, still shows as running.

    Without the orphaned ones, which are reported with their models.
    """
    open_in_mlflow = {path.name for paths in orphaned_runs(settings).values() for path in paths}
    gone = [path for path in _gone(settings) if path.name not in open_in_mlflow]
    if not gone or not find_running_prefect(settings):
        return []
    from flows.orchestration import prefect_access

    return [path.name for path in gone if prefect_access.is_running(path.name)]


def end_in_prefect(settings: Settings) -> None:
    """End the flow runs in Prefect whose processes have gone; where it does not answer they wait for the next time."""
    gone = _gone(settings)
    if not gone or not find_running_prefect(settings):
        return
    from flows.orchestration import prefect_access

    for path in gone:
        try:
            prefect_access.end_run(path.name)
        except prefect_access.PrefectUnavailable as exc:
            log.warning("flow run not ended flow_run=%s error=%s", path.name, exc)
            return
        path.unlink(missing_ok=True)


def _gone(settings: Settings) -> list[Path]:
    """The files of the flow runs whose processes have gone."""
    return [path for path in sorted(_flow_runs(settings).glob("*")) if _is_free(path)]


def has_gone(home: Path, flow_run_id: str) -> bool:
    """Whether the process of a flow run of this home has ended."""
    path = home / _FLOW_RUNS / flow_run_id
    return not path.exists() or _is_free(path)


def _is_free(path: Path) -> bool:
    """Whether this file exists and nobody has locked it; one that was removed meanwhile is not made again."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return path.exists()
    except OSError:
        return False


def _flow_runs(settings: Settings) -> Path:
    return settings.home.absolute() / _FLOW_RUNS


def _directory(settings: Settings) -> Path:
    return settings.home.absolute() / "trainings"
