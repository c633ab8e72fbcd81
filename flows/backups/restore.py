"""Restores a backup to a home and a models directory that have nothing yet, wherever they are."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path

from flows.backups.archive import HOME, REPOSITORY, BackupError, Manifest, extract
from flows.machine.restoring import STAGING, Restoring, discard, find_restoring, staged_files
from flows.registry.relocation import relocate
from serving.repository.files import fsync, fsync_tree, remove_empty
from serving.repository.model_config import ModelEntry, parse, render
from serving.repository.store import Repository

_HARMLESS = {HOME: {"logs", "prefect", STAGING}, REPOSITORY: {"README.md", ".locks", STAGING}}
"""what a new home and a new repository have, and one of which a restore was interrupted"""


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

    One that was interrupted before that is begun again, and one that was interrupted later is finished.

    Args:
        file: As `back_up` wrote it.
        home: A directory without any state, made where it is missing.
        models_repo: A directory without models, made where it is missing.

    Raises:
        BackupError: There is something already, another restore was interrupted there or runs, or the backup is
            damaged; nothing has been changed.
    """
    places = {HOME: home.absolute(), REPOSITORY: models_repo.absolute()}
    if not file.is_file():
        raise BackupError(f"{file} is not there")
    new = [place for place in places.values() if not place.exists()]
    try:
        with ExitStack() as locks:
            restoring = _prepare(file, places, locks) or _stage(file, places)
            for kind in (REPOSITORY, HOME):  # as long as the home has its record, the next restore goes on
                _move_into(places[kind], staged_files(places[kind]))
                discard(places[kind])
    except BaseException:
        for place in new:
            remove_empty(place)
        raise
    models = tuple(Repository(places[REPOSITORY]).models())
    return Restored(restoring.home, restoring.models_repo, restoring.made_at, models)


def _prepare(file: Path, places: Mapping[str, Path], locks: ExitStack) -> Restoring | None:
    """Lock the places and check that this backup may come there; the restore of it that has to be finished."""
    interrupted = find_restoring(places[HOME], places[REPOSITORY])
    if interrupted is not None and interrupted != _restoring(file, places, interrupted.made_at):
        raise BackupError(
            f"A restore of another backup, or to elsewhere too, was interrupted: finish it first, with its own file, to"
            f" {interrupted.home} and {interrupted.models_repo}, or empty both"
        )
    for kind, place in sorted(places.items(), key=itemgetter(1)):  # one may be in the other, and is new then
        place.mkdir(parents=True, exist_ok=True)
        locks.enter_context(_locked(place))
        if interrupted is None:
            _check_free(kind, place)
            discard(place)
        elif (files := staged_files(place)).is_dir():
            _check_free(kind, place, {path.name for path in files.iterdir()})
    return interrupted


def _restoring(file: Path, places: Mapping[str, Path], made_at: str) -> Restoring:
    with file.open("rb") as archive:
        digest = hashlib.file_digest(archive, "sha256").hexdigest()
    return Restoring(digest, str(places[HOME]), str(places[REPOSITORY]), made_at)


@contextmanager
def _locked(place: Path) -> Iterator[None]:
    descriptor = os.open(place, os.O_RDONLY)
    try:
        _lock(descriptor, place)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, place: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        raise BackupError(f"Another restore to {place} is running: wait for its end") from exc
    except OSError:
        return  # directories cannot be locked there


def _check_free(kind: str, place: Path, staged: Collection[str] | None = None) -> None:
    """Nothing may be where the `staged` entries go; without them, nothing at all."""
    found = {path.name for path in place.iterdir()} - _HARMLESS[kind]
    if kind == HOME and (place / "prefect" / "prefect.db").exists():
        found.add("prefect")
    if more := sorted(found if staged is None else found.intersection(staged)):
        setting = "HOTSWAP_HOME" if kind == HOME else "HOTSWAP_MODELS_REPO"
        raise BackupError(
            f"{place} has {more[0]} already: restore with `--to` an empty directory, or set {setting} to one"
        )


def _stage(file: Path, places: Mapping[str, Path]) -> Restoring:
    """Write everything beside its place, in the same file system, and verify it."""
    staged = {kind: staged_files(place) for kind, place in places.items()}
    try:
        for files in staged.values():
            files.mkdir(parents=True)
        manifest = extract(file, staged)
        _repair_paths(staged, places, manifest)
        for files in staged.values():
            fsync_tree(files)
        restoring = _restoring(file, places, manifest.made_at)
        restoring.record()
    except BaseException:
        for place in places.values():
            discard(place)
        raise
    return restoring


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
    for path in sorted(staged.iterdir()) if staged.is_dir() else ():
        target = place / path.name
        if target.is_dir():  # `prefect` of a new home, in which nothing is
            shutil.rmtree(target)
        path.replace(target)
    fsync(place)
