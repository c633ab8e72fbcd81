"""
Backs up home, repository and registry, also while everything runs and trains.

What the repository has is linked beside it while all models are locked, which takes a moment: the files of a version
never change, and the others are copied. Databases are copied by SQLite's own backup, after the repository and before
the artifacts, so that every version has its record and every record its artifacts.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from flows.backups.archive import HOME, REPOSITORY, BackupError, Manifest, writing
from flows.machine.restoring import STAGING
from flows.machine.workspaces import temporary_directory
from flows.settings import Settings
from serving.repository.files import directory_names
from serving.repository.names import MODEL_NAME
from serving.repository.store import Repository

DATABASES = ("mlflow.db", "prefect/prefect.db")
_SNAPSHOT = ".backup"
_OF_RUNNING = frozenset(
    {
        *("logs", "up.lock", "up.json", "flow_runs", "trainings", "checkpoints", "events", "prefect", STAGING),
        *(f"mlflow{end}" for end in (".db", ".db-wal", ".db-shm", ".db-journal", "-users.db", "-users.ini")),
    }
)
"""what the home has of running processes, or as databases, which are copied by themselves"""
_NOT_KEPT = frozenset((_SNAPSHOT, STAGING, ".locks", ".staging", ".repository.json"))
"""a restored repository gets an identity of its own: the one that was backed up may still be served"""


@dataclass(frozen=True, slots=True)
class Backup:
    """One that has been made."""

    file: str
    size_bytes: int
    files: int
    models: tuple[str, ...]


def back_up(settings: Settings, file: Path) -> Backup:
    """
    Write all of it to one archive.

    Raises:
        BackupError: The file is there already, is in what it is to keep, or cannot be written.
        RepositoryError: A model is being changed for too long.
    """
    repository, home = Repository(settings.models_repo), settings.home.absolute()
    for place in (home, repository.root):
        if file.resolve().is_relative_to(place.resolve()):
            raise BackupError(f"{file} is in {place}, of which it is the backup: name a file elsewhere")
    with writing(file) as archive, temporary_directory() as directory:
        with _snapshot(repository) as snapshot:
            archive.add_tree(snapshot, REPOSITORY)
        for name in DATABASES:
            if (home / name).is_file():
                _copy_database(home / name, copy := directory / Path(name).name)
                archive.add(copy, f"{HOME}/{name}")
        archive.add_tree(home, HOME, left_out=_OF_RUNNING | _first_part(repository.root, home))
        made_at = datetime.now(UTC).isoformat(timespec="seconds")
        archive.add_manifest(Manifest(str(home), str(repository.root), made_at, archive.files))
    return Backup(str(file), file.stat().st_size, len(archive.files), tuple(repository.models()))


def _first_part(inner: Path, outer: Path) -> frozenset[str]:
    """The entry of `outer` that `inner` is, or is in."""
    return frozenset(inner.relative_to(outer).parts[:1] if inner.is_relative_to(outer) else ())


@contextmanager
def _snapshot(repository: Repository) -> Iterator[Path]:
    """A directory with all that the repository keeps, as it was at one moment."""
    snapshot = repository.root / _SNAPSHOT
    with repository.lock_backup():
        shutil.rmtree(snapshot, ignore_errors=True)  # of one that was killed
        try:
            with ExitStack() as locks:
                for model in _models(repository):
                    locks.enter_context(repository.lock(model))
                locks.enter_context(repository.lock_config())
                _link_tree(repository.root, snapshot)
            yield snapshot
        finally:
            shutil.rmtree(snapshot, ignore_errors=True)


def _models(repository: Repository) -> list[str]:
    """Those with versions, and those that only the journal knows."""
    journal = repository.root / ".journal"
    journaled = {path.stem for path in journal.glob("*.jsonl")} if journal.is_dir() else set[str]()
    return sorted(name for name in {*repository.models(), *journaled} if MODEL_NAME.fullmatch(name))


def _link_tree(root: Path, snapshot: Path) -> None:
    snapshot.mkdir(parents=True)
    for name in sorted(directory_names(root) - _NOT_KEPT):
        copy = _copy if name == ".journal" else _link
        shutil.copytree(root / name, snapshot / name, copy_function=copy, symlinks=True)
    for path in root.iterdir():
        if path.is_file() and path.name not in _NOT_KEPT:
            _copy(path, snapshot / path.name)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # a file system without hard links
        _copy(source, target)


def _copy(source: str | Path, target: str | Path) -> None:
    shutil.copy2(source, target, follow_symlinks=False)


def _copy_database(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as live, closing(sqlite3.connect(target)) as copy:
        live.backup(copy)
        # One that is restored is opened by MLflow, which need not find files of a journal beside it.
        copy.execute("PRAGMA journal_mode = DELETE")
