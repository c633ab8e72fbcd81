"""
Says which repository a server serves.

Several repositories may be on one machine, and a port does not say whose server listens on it. So every repository has
an identity in a file of its own, and the server says which one it serves. It is looked up for each request: the file
may be made, and the directory replaced, after the server has started.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from serving.repository.model_config import ModelEntry
from serving.repository.store import Repository
from serving.settings import ServerSettings


@dataclass(frozen=True, slots=True)
class Identity:
    """One repository, as a server or this process has it."""

    path: str
    id: str | None
    """None where nothing has been written to the repository yet"""
    is_replica: bool = False
    """whether a publish agent keeps it, so that nobody else may"""


def identity_of(repository: Repository) -> Identity:
    """What a repository's own file says."""
    return Identity(str(repository.root), repository.identity(), repository.is_replica)


def served_repository(settings: ServerSettings, entries: Sequence[ModelEntry]) -> Identity | None:
    """
    The repository that a server is for, whatever it was configured to load since.

    That of the config file's directory, else that of the base paths; None when there is none, or several.

    Args:
        settings: The server's.
        entries: The models that it was started with.
    """
    config = [] if settings.model_config_file is None else [settings.model_config_file.absolute().parent]
    parents = {Path(entry.base_path.removeprefix("file://")).parent for entry in entries}
    found = [[identity_of(Repository(place)) for place in places] for places in (config, sorted(parents))]
    for identities in found:
        if known := {identity.id: identity for identity in identities if identity.id is not None}:
            return next(iter(known.values())) if len(known) == 1 else None
    single = [identities[0] for identities in reversed(found) if len(identities) == 1]
    return single[0] if single else None


def is_same_directory(one: Path, other: Path) -> bool:
    """Whether they are the same, however they are written."""
    try:
        return one == other or one.samefile(other)
    except OSError:  # one of them is not there, so they are not the same
        return False
