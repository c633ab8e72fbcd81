"""
The archive of a backup: a compressed tar file whose last member, the manifest, has the SHA-256 of every other.

An archive is complete or not there, as it gets its name when all of it is on disk; what is read from one counts only
once all of it has been verified.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from serving.protocol.errors import HotswapError
from serving.repository.files import fsync

FORMAT = 1
HOME, REPOSITORY = "home", "repository"
"""the two directories of an archive"""
_MANIFEST = "manifest.json"
_CHUNK_BYTES = 1 << 20
_BROKEN = (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error, ValueError, KeyError, TypeError)


class BackupError(HotswapError):
    """A backup cannot be made, or cannot be restored; nothing has been changed."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an archive says of itself."""

    home: str
    """the directory that the home was"""
    models_repo: str
    made_at: str
    """ISO 8601, UTC"""
    files: Mapping[str, str]
    """SHA-256 by name, such as ``repository/iris/1/saved_model.pb``"""
    format: int = FORMAT


class Writer:
    """Adds files to an archive."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self.files: dict[str, str] = {}
        self._tar = tar

    def add_tree(self, root: Path, name: str, left_out: frozenset[str] = frozenset()) -> None:
        """
        Add all that is in a directory, but for what is gone when its turn comes.

        Args:
            root: The directory.
            name: What it is called in the archive.
            left_out: Names of its own entries.
        """
        for path in sorted(root.rglob("*")) if root.is_dir() else ():
            relative = path.relative_to(root)
            if relative.parts[0] not in left_out and path.is_file() and not path.is_symlink():
                with suppress(FileNotFoundError):
                    self.add(path, f"{name}/{relative.as_posix()}")

    def add(self, path: Path, name: str) -> None:
        """Add one file, as long as it is now."""
        with path.open("rb") as file:
            member = self._tar.gettarinfo(arcname=name, fileobj=file)
            hashing = _Hashing(file)
            self._tar.addfile(member, hashing)  # type: ignore[arg-type]  # it only reads
        self.files[name] = hashing.hexdigest()

    def add_manifest(self, manifest: Manifest) -> None:
        content = json.dumps(asdict(manifest), indent=1).encode()
        member = tarfile.TarInfo(_MANIFEST)
        member.size = len(content)
        self._tar.addfile(member, io.BytesIO(content))


class _Hashing:
    """A file that is hashed while it is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()

    def read(self, size: int) -> bytes:
        content = self._file.read(size)
        self._hash.update(content)
        return content

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


@contextmanager
def writing(file: Path) -> Iterator[Writer]:
    """
    Write an archive during the block; a block that fails leaves no file.

    Raises:
        BackupError: There is such a file already, or it cannot be written.
    """
    if file.exists():
        raise BackupError(f"{file} is there already: a backup is never overwritten, name another file")
    partial = file.with_name(f".{file.name}.partial")
    try:
        partial.unlink(missing_ok=True)
        partial.touch(0o600, exist_ok=False)
        with tarfile.open(partial, "w:gz", compresslevel=1) as tar:
            yield Writer(tar)
        fsync(partial)
        partial.rename(file)
        fsync(file.parent)
    except OSError as exc:
        raise BackupError(f"{file} cannot be written ({os.strerror(exc.errno or 0)}): name another place") from exc
    finally:
        partial.unlink(missing_ok=True)


def extract(file: Path, places: Mapping[str, Path]) -> Manifest:
    """
    Write what is in an archive, and verify all of it.

    Args:
        file: The archive.
        places: An empty directory for each of `HOME` and `REPOSITORY`.

    Raises:
        BackupError: It is no archive of a backup, is damaged, or has a file that would leave its directory; what has
            been written must not be used.
    """
    found: dict[str, str] = {}
    try:
        with tarfile.open(file, "r:gz") as tar:
            for member in tar:
                if member.name == _MANIFEST:
                    manifest = _checked(_read_manifest(tar, member), found)
                    _read_on(tar)
                    return manifest
                found[member.name] = _extract(tar, member, places)
    except _BROKEN as exc:
        raise BackupError(f"{file} is damaged, or no backup, so nothing was changed: {exc}") from exc
    except OSError as exc:
        raise BackupError(f"{file} cannot be restored, and nothing was changed: {exc}") from exc
    raise BackupError(f"{file} is damaged, or no backup, so nothing was changed: it has no {_MANIFEST}")


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, places: Mapping[str, Path]) -> str:
    """Write one file; its SHA-256."""
    top, *parts = PurePosixPath(member.name).parts
    # As tarfile's own "data" filter, which refuses links only when they lead out of the directory.
    if not member.isreg() or top not in places or not parts or ".." in parts:
        raise ValueError(f"{member.name!r} is no file of a backup")
    path = places[top].joinpath(*parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    content, whole = tar.extractfile(member), hashlib.sha256()
    assert content is not None
    with path.open("xb") as copy:
        while chunk := content.read(_CHUNK_BYTES):
            whole.update(chunk)
            copy.write(chunk)
        os.fchmod(copy.fileno(), member.mode & 0o755)
        os.fsync(copy.fileno())
    return whole.hexdigest()


def _read_manifest(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Manifest:
    content = tar.extractfile(member)
    record: dict[str, Any] = json.loads(content.read() if content else b"")
    if record["format"] != FORMAT:
        raise ValueError(f"it is of format {record['format']}, and this release reads {FORMAT}")
    return Manifest(**record)


def _read_on(tar: tarfile.TarFile) -> None:
    """To the end of the file, where the checksum is that the manifest has no digest for."""
    assert tar.fileobj is not None
    while tar.fileobj.read(_CHUNK_BYTES):
        pass


def _checked(manifest: Manifest, found: Mapping[str, str]) -> Manifest:
    for name in sorted({*manifest.files, *found}):
        if manifest.files.get(name) != found.get(name):
            raise ValueError(f"{name} is not as it was backed up")
    return manifest
