"""
Keeps the models repository on disk: stages, publishes, retires, restores and archives versions.

::

    models_repo/
      iris/3/                 published: visible to the server, always complete
      .staging/iris/4/        being copied in
      .retired/iris/2/        taken out, restorable
      .removed/iris-…/1/      archived with the whole model, restorable
      .locks/iris.lock        held while iris is changed; the kernel frees it when that process ends
      models.config           which models and labels the server knows
      .repository.json        which repository this is, made by the first write

A version appears and disappears by one `rename` on one file system. Everything that changes a model is called with
`Repository.lock` of that model held.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from serving.protocol.errors import IncompleteSavedModel, RepositoryError, VersionExists, VersionNotFound
from serving.repository.files import (
    copy_tree,
    directory_names,
    fsync,
    fsync_tree,
    remove_empty,
    version_directories,
    write_atomically,
)
from serving.repository.names import MODEL_NAME, validate_model_name
from serving.repository.saved_model_files import check_complete, digest
from serving.repository.stamp import Stamp

log = logging.getLogger(__name__)

FOLLOWS = "is_replica"
"""in the file with the identity, of a directory that follows a repository elsewhere"""


class Repository:
    """The models below one directory."""

    _is_the_agents = False
    """whether this may change a directory that follows a repository elsewhere"""

    def __init__(self, root: Path, changed: Callable[[], None] | None = None) -> None:
        """`changed` is called after each change of what is published or labelled."""
        self.root = root.absolute()
        self.config_path = self.root / "models.config"
        self._changed = changed
        self._identity_path = self.root / ".repository.json"

    def models(self) -> list[str]:
        """The models that have a directory or a retired version, by name."""
        names = directory_names(self.root) | directory_names(self.root / ".retired")
        return sorted(name for name in names if MODEL_NAME.fullmatch(name))

    def versions(self, model: str) -> list[int]:
        """The published versions, lowest first."""
        return version_directories(self.base_path(model))

    def retired(self, model: str) -> list[int]:
        """The versions that `restore` can bring back, lowest first."""
        return version_directories(self.root / ".retired" / validate_model_name(model))

    def highest_version_seen(self, model: str) -> int:
        """The highest version number on disk, retired and half-staged ones included; 0 for none."""
        return max([*self.versions(model), *self.retired(model), *version_directories(self._staging(model))], default=0)

    def archived(self, model: str) -> dict[int, Path]:
        """Where each version is that was archived with its whole model, lowest first."""
        found: dict[int, Path] = {}
        for archive in sorted(self._archives(model)):
            found |= {version: archive / str(version) for version in version_directories(archive)}
        return dict(sorted(found.items()))

    def base_path(self, model: str) -> Path:
        """The directory that a server polls for `model`."""
        return self.root / validate_model_name(model)

    def path(self, model: str, version: int) -> Path:
        return self.base_path(model) / str(version)

    def retired_path(self, model: str, version: int) -> Path:
        return self.root / ".retired" / validate_model_name(model) / str(version)

    def stamp(self, model: str, version: int) -> Stamp:
        """What publish kept with a version, also one that is retired or archived; empty for one that came by hand."""
        archived = self.archived(model).get(version)
        paths = (self.path(model, version), self.retired_path(model, version), *([archived] if archived else []))
        return next(filter(None, map(Stamp.read, paths)), Stamp())

    def lock(self, model: str, timeout_seconds: float = 60.0) -> AbstractContextManager[None]:
        """
        Keep every other process from changing `model`.

        Raises:
            RepositoryError: Someone else held the lock for `timeout_seconds`, or the repository cannot be written.
        """
        return self._locked(f"{validate_model_name(model)}.lock", f"model {model!r}", timeout_seconds)

    def is_locked(self, model: str) -> bool:
        """Whether another process is changing `model`."""
        if self.is_replica:
            return False  # the agent takes no lock
        try:
            with self.lock(model, timeout_seconds=0):
                return False
        except RepositoryError:
            return True

    def lock_config(self, timeout_seconds: float = 60.0) -> AbstractContextManager[None]:
        """Keep every other process from changing ``models.config``, which all models share."""
        return self._locked(".models.config.lock", "models.config", timeout_seconds)

    def lock_backup(self) -> AbstractContextManager[None]:
        """Keep every other process from beginning a backup."""
        return self._locked(".backup.lock", "the backup of this repository", timeout_seconds=60.0)

    def identity(self) -> str | None:
        """The unique name of this repository; None where nothing has been written to it yet."""
        found = self._identity_content().get("id")
        return found if isinstance(found, str) else None

    @property
    def is_replica(self) -> bool:
        """Whether it follows a repository elsewhere, so that its publish agent alone changes it."""
        return self._identity_content().get(FOLLOWS) is True

    def _identity_content(self) -> dict[str, Any]:
        try:
            content = json.loads(self._identity_path.read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def check_own(self) -> None:
        """
        Raises:
            RepositoryError: It follows a repository elsewhere.
        """
        if self.is_replica and not self._is_the_agents:
            raise RepositoryError(
                f"{self.root} follows a repository elsewhere, and only its `hotswap agent` changes it: "
                "run this command where that repository is, or set HOTSWAP_MODELS_REPO to another directory"
            )

    def identity_file(self) -> tuple[int, int] | None:
        """
        Inode and time of change of the file with the identity, which no copy of it can have; None where there is none.

        Two mounts of one file system agree on both.
        """
        try:
            stat = self._identity_path.stat()
        except OSError:
            return None
        return stat.st_ino, stat.st_ctime_ns

    def check_writable(self) -> None:
        """Raise the error that a later publish would meet, before any work is done."""
        self.check_own()
        with self._writing():
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root) as file:
                file.write(b"\0" * 65536)
                file.flush()
            self._identify()

    def stage(self, model: str, version: int, source: Path, stamp: Stamp) -> Path:
        """
        Copy the SavedModel at `source` beside the published versions, safely on disk and with `stamp` inside.

        Raises:
            IncompleteSavedModel: `source` lacks a file that a server needs, or the copy differs from it.
            RepositoryError: The repository cannot be written; nothing is left behind.
        """
        check_complete(source)
        staged = self._staging(model) / str(version)
        try:
            with self._writing():
                # Whoever staged here before held the lock and is gone.
                shutil.rmtree(staged.parent, ignore_errors=True)
                copy_tree(source, staged)
                stamp.write(staged)
                fsync_tree(staged)
            if (copied := digest(staged)) != (wanted := digest(source)):
                raise IncompleteSavedModel(
                    f"The copy in {staged} has digest {copied}, its source {source} has {wanted}"
                )
        except BaseException:
            shutil.rmtree(staged.parent, ignore_errors=True)
            raise
        return staged

    def publish(self, model: str, version: int, staged: Path) -> Path:
        """
        Make a staged version visible, by one rename.

        Raises:
            VersionExists: The number is published or retired already.
        """
        if version in self.versions(model) or version in self.retired(model):
            raise VersionExists(f"Version {version} of {model!r} exists already: version numbers are never used twice")
        path = self._move(staged, self.path(model, version))
        remove_empty(staged.parent)
        log.info("version published model=%s version=%d", model, version)
        return path

    def retire(self, model: str, version: int) -> Path:
        """
        Take a version out of the polled directory.

        Raises:
            VersionNotFound: It is not published.
        """
        if version not in self.versions(model):
            raise VersionNotFound(f"Version {version} of {model!r} is not published: {self._choice(model)}")
        path = self._move(self.path(model, version), self.retired_path(model, version))
        log.info("version retired model=%s version=%d", model, version)
        return path

    def restore(self, model: str, version: int) -> Path:
        """
        Put a version back that was retired, or archived with its whole model.

        Raises:
            VersionNotFound: It is neither.
            IncompleteSavedModel: Its files are no longer those that were published.
        """
        retired, archived = self.retired(model), self.archived(model)
        if version not in retired and version not in archived:
            choice = ", ".join(map(str, sorted({*retired, *archived}))) or "none"
            raise VersionNotFound(f"Version {version} of {model!r} is not retired; retired are: {choice}")
        source = self.retired_path(model, version) if version in retired else archived[version]
        self._check_files(source, self.stamp(model, version))
        path = self._move(source, self.path(model, version))
        log.info("version restored model=%s version=%d", model, version)
        return path

    def archive(self, model: str, name: str, journal: str) -> Path:
        """
        Move all that there is of a model into the archive `name`; what was moved there already stays.

        Args:
            model: No server may have it any more, and its lock is held.
            name: As `archive_name` made it.
            journal: What to keep beside the versions.
        """
        archive = self.archive_path(name)
        for version in self.versions(model):
            self._move(self.path(model, version), archive / str(version))
        for version in self.retired(model):
            self._move(self.retired_path(model, version), archive / str(version))
        with self._writing():
            archive.mkdir(parents=True, exist_ok=True)
            write_atomically(archive / "journal.jsonl", journal)
            shutil.rmtree(self._staging(model), ignore_errors=True)
            for directory, kept in (
                (self.base_path(model), "others"),
                (self.root / ".retired" / model, "others_retired"),
            ):
                remove_empty(directory)
                if directory.exists():
                    directory.rename(archive / kept)
        log.info("model archived model=%s archive=%s", model, archive)
        return archive

    def archive_path(self, name: str) -> Path:
        """Where an archive is."""
        return self.root / ".removed" / name

    def _archives(self, model: str) -> list[Path]:
        name = re.compile(rf"{re.escape(validate_model_name(model))}-\d{{8}}T\d{{6}}")
        root = self.root / ".removed"
        return [root / each for each in directory_names(root) if name.fullmatch(each)]

    def check_files(self, model: str, version: int) -> None:
        """
        Raises:
            IncompleteSavedModel: The files of a published version are no longer those that were published.
        """
        self._check_files(self.path(model, version), self.stamp(model, version))

    def read_config(self) -> str:
        """The text of ``models.config``; empty when there is none yet."""
        try:
            return self.config_path.read_text("utf-8")
        except FileNotFoundError:
            return ""

    def write_config(self, text: str) -> None:
        """Replace ``models.config`` as a whole: a reader sees the old text or the new."""
        with self._writing():
            write_atomically(self.config_path, text)
        self._tell()

    @contextmanager
    def _locked(self, name: str, what: str, timeout_seconds: float) -> Iterator[None]:
        self.check_own()
        with self._writing():
            path = self.root / ".locks" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path)
            try:
                lock.acquire(timeout=timeout_seconds)
            except Timeout as exc:
                raise RepositoryError(
                    f"Another process has been changing {what} for {timeout_seconds:g} s: try again when it is done"
                ) from exc
        try:
            with self._writing():
                self._identify()
            yield
        finally:
            lock.release()

    def _check_files(self, path: Path, stamp: Stamp) -> None:
        check_complete(path)
        if stamp.digest is not None and digest(path) != stamp.digest:
            raise IncompleteSavedModel(f"{path} no longer has the digest it was published with ({stamp.digest})")

    def _identify(self) -> None:
        """Give the repository its identity; of several processes that come at once, one does."""
        if self._identity_path.exists():
            return
        descriptor, temporary = tempfile.mkstemp(dir=self.root, prefix=f"{self._identity_path.name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(json.dumps({"id": str(uuid.uuid4())}) + "\n")
                file.flush()
                os.fchmod(file.fileno(), 0o644)
                os.fsync(file.fileno())
            with suppress(FileExistsError):
                os.link(temporary, self._identity_path)
        finally:
            os.unlink(temporary)  # noqa: PTH108

    def _staging(self, model: str) -> Path:
        return self.root / ".staging" / validate_model_name(model)

    def _choice(self, model: str) -> str:
        return "published are: " + (", ".join(map(str, self.versions(model))) or "none")

    def _move(self, source: Path, target: Path) -> Path:
        with self._writing():
            target.parent.mkdir(parents=True, exist_ok=True)
            # A rename onto an empty directory would succeed in silence.
            if target.exists():
                raise VersionExists(f"{target} exists already")
            source.rename(target)
            fsync(target.parent)
            fsync(source.parent)
        self._tell()
        return target

    def _tell(self) -> None:
        if self._changed is not None:
            self._changed()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise RepositoryError(_explain(self.root, exc)) from exc


def _explain(root: Path, exc: OSError) -> str:
    if exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"No room is left in {root}: free some space there, or set HOTSWAP_MODELS_REPO to another directory"
    reason = os.strerror(exc.errno) if exc.errno else str(exc)
    return f"Cannot write to {root} ({reason}): make it writable, or set HOTSWAP_MODELS_REPO to another directory"
