"""
Fetches one version from the artifact store into the staging directory of a host.

File by file, so that an agent that was killed goes on where it was, and never more of it in memory than a block. What
is there in the end has the digest that the registry names, or it is thrown away.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from flows.registry.fleet_registry import RegisteredFiles
from flows.registry.mlflow_errors import RegistryError
from serving.protocol.errors import HotswapError
from serving.repository.files import fsync_tree
from serving.repository.replica import Replica
from serving.repository.saved_model_files import check_complete, digest
from serving.repository.signatures import check_signature

_NO_ROOM = tuple(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
_SPARE_BYTES = 1 << 20
"""what is left for the other files of the directory"""


class NoRoom(HotswapError):
    """The disk of this host is too small for a version."""


class WrongFiles(HotswapError):
    """The artifact store holds other files than were judged."""


class Unwanted(HotswapError):
    """The version was taken back while it was fetched."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A version, by the digest of its files."""

    model: str
    version: int
    digest: str


def fetch(
    replica: Replica, files: RegisteredFiles, wanted: Wanted, is_wanted: Callable[[], bool], trusted: Path | None = None
) -> Path:
    """
    Stage a version, safely on disk; the directory, ready to be published.

    Args:
        replica: Where to.
        files: Where from.
        wanted: What.
        is_wanted: Asked between two files.
        trusted: The public keys of which one must have signed it, if any.

    Raises:
        NoRoom: It does not fit; nothing of it is left behind.
        WrongFiles: It has another digest; nothing of it is left behind.
        UntrustedVersion: No trusted key has signed it; nothing of it is left behind.
        Unwanted: `is_wanted` said no.
        RegistryError: The artifact store cannot be read; what has come stays for the next attempt.
    """
    staged = replica.staged_path(wanted.model, wanted.version)
    try:
        _download(files, staged, is_wanted)
        _check(staged, wanted, files.stamp.signature, trusted)
        replace(files.stamp, version=wanted.version, digest=wanted.digest).write(staged)
        fsync_tree(staged)
    except (RegistryError, OSError) as exc:
        if not _is_no_room(exc):
            raise  # what has come stays
        shutil.rmtree(staged, ignore_errors=True)
        raise NoRoom(f"No room is left in {replica.root}: free some space there") from exc
    except HotswapError:
        shutil.rmtree(staged, ignore_errors=True)
        raise
    return staged


def _check(staged: Path, wanted: Wanted, signature: str | None, trusted: Path | None) -> None:
    if (found := digest(staged)) != wanted.digest:
        raise WrongFiles(f"MLflow's artifact store has digest {found} instead of {wanted.digest}")
    if trusted is not None:
        check_signature(wanted.model, wanted.version, found, signature, trusted)
    check_complete(staged)


def _download(files: RegisteredFiles, staged: Path, is_wanted: Callable[[], bool]) -> None:
    sizes = files.sizes()
    staged.mkdir(parents=True, exist_ok=True)
    missing = [path for path, size in sizes.items() if _size(staged / path) != size]
    _remove_others(staged, set(sizes))
    needed = sum(sizes[path] for path in missing)
    if needed + _SPARE_BYTES > shutil.disk_usage(staged).free:
        raise NoRoom(f"No room is left in {staged.parents[2]} for {needed:,} bytes: free some space there")
    for path in missing:
        if not is_wanted():
            raise Unwanted("it is not wanted any more")
        (staged / path).unlink(missing_ok=True)
        files.download(path, staged)


def _remove_others(staged: Path, paths: set[str]) -> None:
    """Remove what an attempt left behind that is no file of the version."""
    for file in [each for each in staged.rglob("*") if each.is_file()]:
        if file.relative_to(staged).as_posix() not in paths:
            file.unlink()


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _is_no_room(exc: BaseException) -> bool:
    """Whether the disk was full, which MLflow tells in words only."""
    chain: list[BaseException] = [exc]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and len(chain) < 10:
        chain.append(cause)
    return any(text in str(each) for each in chain for text in _NO_ROOM)
