"""
Takes a snapshot of one model as every side has it: directory, ``models.config``, journal, registry and servers.

It only reads. What cannot be read is noted as such, and never taken for gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from flows.endpoints.servers import Endpoints
from flows.endpoints.views import ModelAtServer
from flows.journal import BrokenJournal, Entry, Journal
from flows.orchestration import open_runs
from flows.promotion import approval, recovery, removal
from flows.promotion.announcing import statement_of
from flows.promotion.approval import Wait
from flows.promotion.deployment import Deployment
from flows.registry.identity import check_same_registry, journaled_publications, registered_here
from flows.registry.reader import RegistryView, read_registry
from flows.settings import Settings
from serving.protocol.errors import HotswapError, VersionNotFound
from serving.repository.model_config import parse
from serving.repository.store import Repository


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One model, as every side has it."""

    model: str
    published: tuple[int, ...]
    retired: tuple[int, ...]
    labels: Mapping[str, int]
    is_configured: bool
    """whether ``models.config`` has it, with the base path of this repository"""
    is_listed: bool
    """whether ``models.config`` has it at all"""
    entries: tuple[Entry, ...]
    registry: RegistryView | None
    """None where MLflow cannot be read"""
    servers: tuple[ModelAtServer, ...] | None
    """what each has of it; None where none runs"""
    registry_error: str = ""
    """why MLflow cannot be read"""
    journal_error: str = ""
    """which line of the journal was changed"""
    is_announced: bool = True
    """whether the hosts of a fleet were told what is published and labelled"""
    open_runs: tuple[str, ...] = ()
    """the flow runs of the trainings that have ended without closing their runs in MLflow"""
    abandoned: tuple[Wait, ...] = ()
    """the waits for an approval whose processes have gone"""

    @property
    def states(self) -> Mapping[int, str] | None:
        """
        The state of every version that all reachable servers have; where they differ, one that is not AVAILABLE.

        None where no server answers.
        """
        found = [each.states for each in self.servers or () if not each.problem]
        if not found:
            return None
        return {
            version: next((each[version] for each in found if each[version] != "AVAILABLE"), "AVAILABLE")
            for version in set(found[0]).intersection(*found[1:])
        }

    @property
    def removal(self) -> Entry | None:
        """The entry that began the removal of the model, when that was interrupted."""
        return removal.unfinished(self.entries, self.is_listed)

    @property
    def unfinished(self) -> Entry | None:
        """The entry that began a promotion or a rollback which was interrupted."""
        return recovery.unfinished(self.entries, self.labels)

    @property
    def once_registered(self) -> set[int | None]:
        """The versions that were registered when they were published."""
        return journaled_publications(self.entries)

    @property
    def lost(self) -> list[int]:
        """The published versions that the registry had once, and has no longer."""
        once = self.once_registered
        return [version for version in self.published if version in once and self.is_unregistered(version)]

    def is_live(self, version: int) -> bool:
        """Whether a label points to it or no other version is available: then it must not be taken out."""
        others = {each for each in self.published if each != version and self.is_usable(each)}
        return version in self.labels.values() or not others

    def is_usable(self, version: int | None) -> bool:
        """Whether a label can point to it."""
        available = self.states is None or (version is not None and self.states.get(version) == "AVAILABLE")
        return version in self.published and available

    def is_loading(self, version: int | None) -> bool:
        """Whether it is published, and a server has not finished loading it."""
        if version is None or version not in self.published or self.states is None:
            return False
        return self.states.get(version) in LOADING

    def is_unregistered(self, version: int | None) -> bool:
        """Whether the registry can be read, and does not have it."""
        return self.registry is not None and version not in self.registry.runs

    def can_be_registered_again(self, version: int) -> bool:
        """Whether the registry can take it back: MLflow only numbers upwards, and each attempt costs a number."""
        attempted = any(version in entry.facts.get("lost", []) for entry in self.entries)
        return self.registry is not None and not attempted and version > max(self.registry.runs, default=0)

    def is_behind(self, server: ModelAtServer) -> bool:
        """Whether a reload would change which versions `server` has."""
        return bool(server.elsewhere or server.base_path) or any(map(server.needs_reload, self.published))

    def has_other_labels(self, server: ModelAtServer) -> bool:
        """Whether `server` reports other labels; one of a version that is not available may be there or not."""
        if server.labels is None:
            return False
        wanted = {label: at for label, at in self.labels.items() if server.states.get(at) == "AVAILABLE"}
        differs = any(server.labels.get(label) != at for label, at in wanted.items())
        return differs or not server.labels.items() <= self.labels.items()


LOADING = ("START", "LOADING", None)
"""the states of a version that may still become available"""


def known_models(settings: Settings) -> list[str]:
    """
    Every model that the directory, ``models.config``, a journal or an open run knows.

    None of a directory that follows a repository elsewhere, where all of that is compared.
    """
    repository = Repository(settings.models_repo)
    if repository.is_replica:
        return []
    journals = {path.stem for path in (repository.root / ".journal").glob("*.jsonl")}
    configured = (entry.name for entry in parse(repository.read_config()))
    return sorted({*repository.models(), *configured, *journals, *open_runs.orphaned_runs(settings)})


def check_known(settings: Settings, model: str) -> str:
    """
    `model`, when one of the sides knows it.

    Raises:
        VersionNotFound: None does.
    """
    if model not in (known := known_models(settings)):
        raise VersionNotFound(f"There is no model {model!r}; known are: {', '.join(known) or 'none yet'}")
    return model


def take_snapshot(deployment: Deployment, servers: Endpoints | None) -> Snapshot:
    """What every side has of one model."""
    repository, model = deployment.repository, deployment.model
    config = {entry.name: entry for entry in parse(repository.read_config())}
    entries, journal_error = _read_journal(deployment.journal)
    registry, registry_error = _read_registry(repository, model, entries)
    return Snapshot(
        model=model,
        published=tuple(deployment.versions),
        retired=tuple(repository.retired(model)),
        labels=dict(config[model].labels) if model in config else {},
        is_listed=model in config,
        is_configured=model in config and config[model].base_path == str(repository.base_path(model)),
        entries=entries,
        registry=registry,
        servers=servers.view(model) if servers else None,
        registry_error=registry_error,
        journal_error=journal_error,
        is_announced=_is_announced(deployment, registry),
        abandoned=tuple(wait for wait in approval.waits(deployment) if wait.is_abandoned),
        open_runs=tuple(path.name for path in open_runs.orphaned_runs(deployment.settings).get(model, [])),
    )


def _is_announced(deployment: Deployment, registry: RegistryView | None) -> bool:
    if not deployment.settings.fleet or registry is None or not registry.known:
        return True
    return registry.statement == statement_of(deployment).encode()


def _read_registry(repository: Repository, model: str, entries: tuple[Entry, ...]) -> tuple[RegistryView | None, str]:
    """What MLflow has of `model`, or why it cannot be read."""
    try:
        view = read_registry(model)
        check_same_registry(view, model, registered_here(repository, model, entries))
        return view, ""
    except HotswapError as exc:
        return None, str(exc)


def _read_journal(journal: Journal) -> tuple[tuple[Entry, ...], str]:
    """The entries, or why they cannot be read; the file is read again only when it has changed."""
    try:
        stat = journal.path.stat()
        return _read_entries(journal.path, stat.st_ino, stat.st_size, stat.st_mtime_ns), ""
    except FileNotFoundError:
        return (), ""
    except BrokenJournal as exc:
        return (), str(exc)


@lru_cache(maxsize=64)
def _read_entries(path: Path, *_changed: int) -> tuple[Entry, ...]:
    return tuple(Journal(path.parent.parent, path.stem).read())
