"""What ``models.config`` asks a server to load."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from clients.client import Served
from serving.repository.model_config import ModelEntry, parse
from serving.repository.store import Repository


def servable_entries(repository: Repository) -> list[ModelEntry]:
    """The models of ``models.config`` that have a published version: a server would wait for any other."""
    return [entry for entry in parse(repository.read_config()) if repository.versions(entry.name)]


def entries_for(served: Served | None, repository: Repository) -> list[ModelEntry]:
    """The same with base paths as the server has them: it may have the repository at another place."""
    entries = servable_entries(repository)
    if served is None or served.repository is None or served.repository_id != repository.identity():
        return entries
    root = Path(served.repository)
    return [replace(entry, base_path=str(root / entry.name)) for entry in entries]
