"""
How does a whole model leave?

It is unloaded everywhere, then all its versions are moved into an archive beside the others; nothing is deleted, in
MLflow neither. Its journal stays where it is and goes on, so that no number of it is ever used again and nobody takes
the model for lost. Once ``models.config`` no longer has the model, what was interrupted is finished by the next
training, by `hotswap reconcile` or by asking for it again; before that nothing has changed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.endpoints.preflight import ask_first
from flows.endpoints.servers import on_running_servers
from flows.journal import Entry, Journal
from flows.promotion import labelling
from flows.promotion.labelling import STABLE, attempt
from flows.settings import Settings
from serving.protocol.errors import FailedPrecondition, VersionNotFound
from serving.repository.store import Repository, archive_name

if TYPE_CHECKING:
    from flows.registry.mlflow_registry import Registry

log = logging.getLogger(__name__)

REMOVING = "removing"
"""what the journal says before anything is done, so that a removal that is killed can be finished"""
REMOVE = "remove"


class RemovalRefused(FailedPrecondition):
    """A whole model is removed only with a reason."""


@dataclass(frozen=True, slots=True)
class Removal:
    """What `remove` did, or would do."""

    model: str
    live: int | None
    """the version that label ``stable`` pointed to"""
    published: tuple[int, ...]
    retired: tuple[int, ...]
    labels: Mapping[str, int]
    archive: str
    server: str | None
    """the servers that no longer have it; None: none runs"""
    dry_run: bool = False


def remove(settings: Settings, model: str, force: str | None = None, dry_run: bool = False) -> Removal:
    """
    Take a whole model out, and archive it.

    Args:
        settings: Where the repository, the registry and the servers are.
        model: The model's name.
        force: Why.
        dry_run: Only say what would change.

    Raises:
        VersionNotFound: There is no such model, or it was removed already.
        RemovalRefused: `force` is not given.
        HotswapError: A server or the registry does not answer; nothing has changed.
    """
    repository = Repository(settings.models_repo)
    with repository.lock(model):
        entries = Journal(settings.models_repo, model).read()
        begun = unfinished(entries, labelling.is_configured(repository, model))
        planned = _planned(repository, model) if begun is None else _of(begun, model)
        if begun is None:
            _check_is_there(repository, planned, entries)
        if dry_run:
            return planned
        if not force and begun is None:
            raise RemovalRefused(f"{_what_is_live(planned)}: to remove the whole model, add --force REASON")
        # All are asked before anything changes.
        from flows.promotion.promotion import open_registry  # it imports this module

        registry = open_registry(settings, model, may_be_unknown=True)
        ask_first(settings)
        if begun is None:
            _begin(settings, planned, force or "")
        return _finish(settings, registry, planned)


def unfinished(entries: Sequence[Entry], is_listed: bool) -> Entry | None:
    """
    The entry that began a removal which was interrupted.

    Args:
        entries: The model's journal.
        is_listed: Whether ``models.config`` has the model, so that nothing has been done yet.
    """
    last = entries[-1] if entries else None
    return last if last is not None and last.action == REMOVING and not is_listed else None


def finish(settings: Settings, registry: Registry, model: str) -> bool:
    """Finish a removal that was interrupted; whether there was one. The model's lock is held."""
    entries = Journal(settings.models_repo, model).read()
    begun = unfinished(entries, labelling.is_configured(Repository(settings.models_repo), model))
    if begun is None:
        return False
    _finish(settings, registry, _of(begun, model))
    return True


def way_back(repository: Repository, model: str) -> str:
    """How a model that was removed comes back, as the end of a sentence; empty for any other."""
    archived = repository.archived(model)
    if not archived:
        return ""
    return f"; it was removed, and `hotswap restore {model} {max(archived)}` brings a version of it back"


def _planned(repository: Repository, model: str) -> Removal:
    labels = labelling.read(repository, model)
    published = tuple(repository.versions(model))
    return Removal(
        model,
        labels.get(STABLE, max(published, default=None)),
        published,
        tuple(repository.retired(model)),
        labels,
        str(repository.archive_path(archive_name(model))),
        None,
        dry_run=True,
    )


def _of(begun: Entry, model: str) -> Removal:
    """What a removal that was begun is about."""
    facts: Mapping[str, Any] = begun.facts
    published, retired = tuple(facts["published"]), tuple(facts["retired"])
    return Removal(model, facts.get("live"), published, retired, facts["labels"], facts["archive"], None, dry_run=True)


def _check_is_there(repository: Repository, planned: Removal, entries: Sequence[Entry]) -> None:
    model = planned.model
    if planned.published or planned.retired or labelling.is_configured(repository, model):
        return
    if entries and entries[-1].action != REMOVE:
        return
    known = ", ".join(repository.models()) or "none yet"
    gone = way_back(repository, model)
    raise VersionNotFound(f"There is no model {model!r}; known are: {known}{gone}")


def _what_is_live(planned: Removal) -> str:
    if planned.live is None:
        return f"{planned.model!r} has no published version, {len(planned.retired)} retired"
    labels = ", ".join(f"{label} {at}" for label, at in sorted(planned.labels.items())) or "none"
    published = ", ".join(map(str, planned.published))
    return f"Version {planned.live} of {planned.model!r} is live (published: {published}; labels: {labels})"


def _begin(settings: Settings, planned: Removal, why: str) -> None:
    """Unload it everywhere; when that fails, it is as it was."""
    repository, model = Repository(settings.models_repo), planned.model
    was_configured = labelling.is_configured(repository, model)
    journal = Journal(settings.models_repo, model)
    journal.append(
        REMOVING,
        version=max(repository.highest_version_seen(model), journal.highest_version()) or None,
        live=planned.live,
        published=list(planned.published),
        retired=list(planned.retired),
        labels=dict(planned.labels),
        archive=planned.archive,
        why=why,
    )
    try:
        _unload(settings, planned)
    except BaseException:
        if was_configured:
            attempt("bring the model back", lambda: labelling.restore(settings, model, planned.labels))
        raise


def _unload(settings: Settings, planned: Removal) -> str | None:
    repository = Repository(settings.models_repo)
    labelling.forget(repository, planned.model)
    on_running_servers(settings, lambda server: server.reload(repository))
    return on_running_servers(settings, lambda server: server.wait_gone(planned.model, list(planned.published)))


def _finish(settings: Settings, registry: Registry, planned: Removal) -> Removal:
    """The rest of a removal, once ``models.config`` does not have the model any more; each step may be repeated."""
    repository, model = Repository(settings.models_repo), planned.model
    server = _unload(settings, planned)
    journal = Journal(settings.models_repo, model)
    begun = journal.read()[-1]
    repository.archive(model, Path(planned.archive).name, journal.path.read_text("utf-8"))
    registry.mark_removed(model, begun.time, str(begun.facts.get("why", "")))
    facts = {key: value for key, value in begun.facts.items() if key != "live"}
    journal.append(REMOVE, **facts)
    log.info("model removed model=%s archive=%s", model, planned.archive)
    return replace(planned, server=server, dry_run=False)
