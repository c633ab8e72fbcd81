"""
Removal: a whole model is unloaded everywhere and archived with all its versions; nothing is deleted, neither in MLflow.

Its journal stays in place and goes on, so that no number of it is ever used again and the model does not count as lost.
Once ``models.config`` no longer lists the model, an interrupted removal is finished by the next training, by `hotswap
reconcile` or by repeating it; before that nothing has changed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.journal import Entry
from flows.promotion import labelling
from flows.promotion.attempt import attempt
from flows.promotion.deployment import Deployment
from flows.promotion.labels import STABLE
from serving.protocol.errors import FailedPrecondition, VersionNotFound
from serving.repository.names import archive_name

if TYPE_CHECKING:
    from flows.registry.mlflow_registry import Registry

log = logging.getLogger(__name__)

REMOVING = "removing"
"""the journal's entry before anything is done, so that an interrupted removal is finished"""
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


def remove(deployment: Deployment, force: str | None = None, dry_run: bool = False) -> Removal:
    """
    Take a whole model out, and archive it.

    Args:
        deployment: What is removed.
        force: Why.
        dry_run: Only say what would change.

    Raises:
        VersionNotFound: There is no such model, or it was removed already.
        RemovalRefused: `force` is not given.
        HotswapError: A server or the registry does not answer; nothing has changed.
    """
    with deployment.lock():
        entries = deployment.journal.read()
        begun = unfinished(entries, deployment.labels.is_configured)
        planned = _plan(deployment) if begun is None else _planned_by(begun, deployment.model)
        if begun is None:
            _check_exists(deployment, planned, entries)
        if dry_run:
            return planned
        if not force and begun is None:
            raise RemovalRefused(f"{_what_is_live(planned)}: to remove the whole model, add --force REASON")
        # All are asked before anything changes.
        registry = deployment.open_registry(may_be_unknown=True)
        deployment.servers.ask_first()
        if begun is None:
            _begin(deployment, planned, force or "")
        return _finish(deployment, registry, planned)


def unfinished(entries: Sequence[Entry], is_listed: bool) -> Entry | None:
    """
    The entry that began a removal which was interrupted.

    Args:
        entries: The model's journal.
        is_listed: Whether ``models.config`` has the model, so that nothing has been done yet.
    """
    last = entries[-1] if entries else None
    return last if last is not None and last.action == REMOVING and not is_listed else None


def finish(deployment: Deployment, registry: Registry) -> bool:
    """Finish a removal that was interrupted; whether there was one. The model's lock is held."""
    begun = unfinished(deployment.journal.read(), deployment.labels.is_configured)
    if begun is None:
        return False
    _finish(deployment, registry, _planned_by(begun, deployment.model))
    return True


def way_back(deployment: Deployment) -> str:
    """How a model that was removed comes back, as the end of a sentence; empty for any other."""
    archived = deployment.repository.archived(deployment.model)
    if not archived:
        return ""
    return f"; it was removed, and `hotswap restore {deployment.model} {max(archived)}` brings a version of it back"


def _plan(deployment: Deployment) -> Removal:
    labels, model, repository = deployment.labels.read(), deployment.model, deployment.repository
    published = tuple(deployment.versions)
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


def _planned_by(begun: Entry, model: str) -> Removal:
    """What an interrupted removal is about."""
    facts: Mapping[str, Any] = begun.facts
    published, retired = tuple(facts["published"]), tuple(facts["retired"])
    return Removal(model, facts.get("live"), published, retired, facts["labels"], facts["archive"], None, dry_run=True)


def _check_exists(deployment: Deployment, planned: Removal, entries: Sequence[Entry]) -> None:
    if planned.published or planned.retired or deployment.labels.is_configured:
        return
    if entries and entries[-1].action != REMOVE:
        return
    known = ", ".join(deployment.repository.models()) or "none yet"
    raise VersionNotFound(f"There is no model {planned.model!r}; known are: {known}{way_back(deployment)}")


def _what_is_live(planned: Removal) -> str:
    if planned.live is None:
        return f"{planned.model!r} has no published version, {len(planned.retired)} retired"
    labels = ", ".join(f"{label} {at}" for label, at in sorted(planned.labels.items())) or "none"
    published = ", ".join(map(str, planned.published))
    return f"Version {planned.live} of {planned.model!r} is live (published: {published}; labels: {labels})"


def _begin(deployment: Deployment, planned: Removal, why: str) -> None:
    """Unload it everywhere; if that fails, it is as it was."""
    journal, was_configured = deployment.journal, deployment.labels.is_configured
    journal.append(
        REMOVING,
        version=max(deployment.repository.highest_version_seen(planned.model), journal.highest_version()) or None,
        live=planned.live,
        published=list(planned.published),
        retired=list(planned.retired),
        labels=dict(planned.labels),
        archive=planned.archive,
        why=why,
    )
    try:
        _unload(deployment, planned)
    except BaseException:
        if was_configured:
            attempt("bring the model back", lambda: labelling.apply(deployment, planned.labels))
        raise


def _unload(deployment: Deployment, planned: Removal) -> str | None:
    deployment.labels.forget()
    deployment.servers.each_running(lambda server: server.reload(deployment.repository))
    gone = list(planned.published)
    return deployment.servers.each_running(lambda server: server.wait_gone(planned.model, gone))


def _finish(deployment: Deployment, registry: Registry, planned: Removal) -> Removal:
    """Do what remains once ``models.config`` does not list the model any more; each step may be repeated."""
    journal, model = deployment.journal, deployment.model
    server = _unload(deployment, planned)
    begun = journal.read()[-1]
    deployment.repository.archive(model, Path(planned.archive).name, journal.path.read_text("utf-8"))
    registry.mark_removed(model, begun.time, str(begun.facts.get("why", "")))
    facts = {key: value for key, value in begun.facts.items() if key != "live"}
    journal.append(REMOVE, **facts)
    log.info("model removed model=%s archive=%s", model, planned.archive)
    return replace(planned, server=server, dry_run=False)
