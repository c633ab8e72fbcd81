"""Restores a backup to a home and a models directory that have nothing yet, wherever they are."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from flows.backups.archive import HOME, REPOSITORY, BackupError, Manifest, extract
from flows.registry.relocation import relocate
from serving.repository.files import fsync, remove_empty
from serving.repository.model_config import ModelEntry, parse, render
from serving.repository.store import Repository

_HARMLESS = {HOME: {"logs", "prefect"}, REPOSITORY: {"README.md", ".locks"}}
"""what a new home and a new repository have"""


@dataclass(frozen=True, slots=True)
class Restored:
    """What has been restored, and where it is now."""

    home: str
    models_repo: str
    made_at: str
    models: tuple[str, ...]


def restore(file: Path, home: Path, models_repo: Path) -> Restored:
    """
    Put everything back; all of it is verified before anything is where it belongs.

    Args:
        file: As `back_up` wrote it.
        home: A directory without any state, made where it is missing.
        models_repo: A directory without models, made where it is missing.

    Raises:
        BackupError: There is something already, or the backup is damaged; nothing has been changed.
    """
    places = {HOME: home.absolute(), REPOSITORY: models_repo.absolute()}
    if not file.is_file():
        raise BackupError(f"{file} is not there")
    for kind, place in places.items():
        _check_empty(kind, place)
    new = [place for place in places.values() if not place.exists()]
    try:
        return _restore(file, places)
    except BaseException:
        for place in new:
            remove_empty(place)
        raise


def _restore(file: Path, places: Mapping[str, Path]) -> Restored:
    with ExitStack() as staging:
        staged = {kind: _beside(staging, place) for kind, place in places.items()}
        manifest = extract(file, staged)
        _repair_paths(staged, places, manifest)
        for kind, place in places.items():
            _move_into(place, staged[kind])
    models = tuple(Repository(places[REPOSITORY]).models())
    return Restored(str(places[HOME]), str(places[REPOSITORY]), manifest.made_at, models)


def _check_empty(kind: str, place: Path) -> None:
    found = {path.name for path in place.iterdir()} if place.is_dir() else set[str]()
    more = sorted(found - _HARMLESS[kind])
    if kind == HOME and (place / "prefect" / "prefect.db").exists():
        more.append("prefect/prefect.db")
    if more:
        setting = "HOTSWAP_HOME" if kind == HOME else "HOTSWAP_MODELS_REPO"
        raise BackupError(
            f"{place} has {more[0]} already: restore with `--to` an empty directory, or set {setting} to one"
        )


def _beside(staging: ExitStack, place: Path) -> Path:
    """A directory in the same file system, so that what is in it gets to its place by a rename."""
    place.mkdir(parents=True, exist_ok=True)
    return Path(staging.enter_context(tempfile.TemporaryDirectory(prefix=".restoring-", dir=place)))


def _repair_paths(staged: Mapping[str, Path], places: Mapping[str, Path], manifest: Manifest) -> None:
    """Let MLflow's database and ``models.config`` name what is where it will be."""
    database = staged[HOME] / "mlflow.db"
    if database.exists():
        relocate(database, Path(manifest.home) / "artifacts", places[HOME] / "artifacts")
    config = staged[REPOSITORY] / "models.config"
    if config.exists():
        old, new = f"{manifest.models_repo}/", f"{places[REPOSITORY]}/"
        config.write_text(render([_moved(entry, old, new) for entry in parse(config.read_text("utf-8"))]), "utf-8")


def _moved(entry: ModelEntry, old: str, new: str) -> ModelEntry:
    path = entry.base_path
    return replace(entry, base_path=new + path.removeprefix(old)) if path.startswith(old) else entry


def _move_into(place: Path, staged: Path) -> None:
    for path in sorted(staged.iterdir()):
        target = place / path.name
        if target.is_dir():  # `prefect` of a new home, in which nothing is
            shutil.rmtree(target)
        path.replace(target)
    fsync(place)
