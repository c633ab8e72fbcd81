"""
Rollback: label ``stable`` and alias ``champion`` return to an earlier version, and the later ones are retired.

All later ones go, because TensorFlow Serving answers requests without a label by the highest version. What is above
the stable version and carries another label, as a canary does, stays for clients that ask for it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from flows.journal import Entry
from flows.promotion import aliases, history, labelling, verification
from flows.promotion.change import Change
from flows.promotion.deployment import Deployment
from flows.promotion.labels import STABLE, Protected
from flows.promotion.undo import PromotionUndone
from flows.promotion.unlabelled import warn_unless_stable
from serving.protocol.errors import HotswapError, VersionNotFound

log = logging.getLogger(__name__)

ROLLING_BACK = "rolling back"
"""the journal's entry before the label of a rollback moves, so that an interrupted one is finished"""


def rollback(deployment: Deployment, to: int | None = None, dry_run: bool = False, reason: str | None = None) -> Change:
    """
    Go back to an earlier version, which must load and answer first; a retired one is restored.

    A rollback that was interrupted after its label had moved is finished first; if that is where `to` points, nothing
    else is done.

    Args:
        deployment: What goes back.
        to: The earlier version; the last that was stable when not given.
        dry_run: Only say what would change.
        reason: What the journal keeps as the reason.

    Raises:
        VersionNotFound: There is no earlier version, or `to` is neither published nor retired.
        Protected: A later version carries another label.
        PromotionUndone: The earlier version does not load or answer; nothing has changed.
    """
    with deployment.lock():
        if dry_run:
            return _plan(deployment, to)
        deployment.servers.ask_first()
        finished = finish(deployment)
        if finished is not None and to in (None, finished.version):
            return finished
        change = _carry_out(deployment, _plan(deployment, to), reason)
    warn_unless_stable(deployment)
    return change


def announce(
    deployment: Deployment, target: int, current: int | None, later: Sequence[int], reason: str | None = None
) -> None:
    """Write into the journal what a rollback is about to do, so that it can be finished."""
    facts = {"version": target, "previous": current, "retired": list(later), "why": reason}
    deployment.journal.append(ROLLING_BACK, **facts)


def unfinished(entries: Sequence[Entry], labels: Mapping[str, int]) -> Entry | None:
    """The entry that began a rollback which was interrupted; nothing has changed before its label has moved."""
    last = entries[-1] if entries else None
    if last is None or last.version is None or last.action != ROLLING_BACK:
        return None
    return last if last.version == labels.get(STABLE) else None


def finish(deployment: Deployment) -> Change | None:
    """Finish a rollback that was interrupted after its label had moved; None if there is none. The lock is held."""
    begun = unfinished(deployment.journal.read(), deployment.labels.read())
    if begun is None or begun.version is None:
        return None
    # The servers may not know the label yet.
    change = labelling.move(deployment, STABLE, begun.version)
    facts = begun.facts
    change = replace(change, action="rollback", previous=facts["previous"], retired=tuple(facts["retired"]))
    _retire_newer(deployment, change, facts.get("why"))
    return change


def _plan(deployment: Deployment, to: int | None) -> Change:
    """What a rollback would change."""
    model, current = deployment.model, _current(deployment)
    target = _target(deployment, current, to)
    others = {label: version for label, version in deployment.labels.read().items() if label != STABLE}
    canaries = {version for version in others.values() if version > current}
    later = tuple(version for version in deployment.versions if version > target and version not in canaries)
    for label, version in others.items():
        if version in later:
            raise Protected(
                f"Version {version} of {model!r} carries label {label!r}: "
                f"move it first with `hotswap label {model} {label} {target}`"
            )
    return Change("rollback", model, target, STABLE, current, later, dry_run=True)


def _current(deployment: Deployment) -> int:
    """The version that is live."""
    versions = deployment.versions
    if not versions:
        raise VersionNotFound(f"No version of {deployment.model!r} is published in {deployment.repository.root}")
    return deployment.labels.read().get(STABLE) or deployment.champion or versions[-1]


def _target(deployment: Deployment, current: int, to: int | None) -> int:
    """The version to go back to."""
    if to is None:
        return _version_before(deployment, current)
    if to not in deployment.repository.retired(deployment.model):
        deployment.check_published(to)
    if to >= current:
        raise VersionNotFound(
            f"Version {to} of {deployment.model!r} is not earlier than {current}, the one that is live"
        )
    return to


def _version_before(deployment: Deployment, current: int) -> int:
    """The newest earlier version that was stable; if none was, the newest."""
    model = deployment.model
    earlier = [version for version in deployment.versions if version < current]
    if not earlier:
        raise VersionNotFound(
            f"{model!r} has no version before {current} to roll back to; "
            f"`hotswap status {model}` shows what can be restored"
        )
    stable_once = history.stable_once(deployment.journal.read())
    return max(stable_once.intersection(earlier), default=earlier[-1])


def _carry_out(deployment: Deployment, planned: Change, reason: str | None) -> Change:
    """Verify the earlier version, move the label to it, and retire the later ones."""
    target = planned.version
    with _published(deployment, target):
        deployment.repository.check_files(deployment.model, target)
        verification.verify(deployment, target)
        announce(deployment, target, planned.previous, planned.retired, reason)
        moved = labelling.move(deployment, STABLE, target)
    change = replace(planned, server=moved.server, dry_run=False)
    _retire_newer(deployment, change, reason)
    return change


@contextmanager
def _published(deployment: Deployment, version: int) -> Iterator[None]:
    """Publish a version that was retired; if the block fails, it is retired again."""
    repository, model = deployment.repository, deployment.model
    was_retired = version in repository.retired(model)
    if was_retired:
        repository.restore(model, version)
    try:
        yield
    except BaseException as exc:
        if was_retired:
            repository.retire(model, version)
        if isinstance(exc, HotswapError):
            raise PromotionUndone(f"Version {version} of {model!r} does not work, nothing was changed: {exc}") from exc
        raise


def _retire_newer(deployment: Deployment, change: Change, reason: str | None) -> None:
    """Do what remains of a rollback whose label has moved."""
    model = deployment.model
    for version in sorted({*change.retired}.intersection(deployment.versions)):
        deployment.repository.retire(model, version)
    deployment.servers.each_running(lambda server: server.wait_gone(model, list(change.retired)))
    change.record(deployment, reason)
    _sync_registry(deployment, change)


def _sync_registry(deployment: Deployment, change: Change) -> None:
    """Record a rollback in the registry. A rollback must not depend on MLflow, so a failure is only logged."""
    model = deployment.model
    try:
        aliases.point(deployment, STABLE, change.version)
        for version in set(change.retired).intersection(deployment.registry.versions(model)):
            deployment.registry.tag_version(model, version, {"promotion": "rolled back"})
    except HotswapError as exc:
        hint = f"hotswap label {model} {STABLE} {change.version}"
        log.warning("rolled back, but the registry does not know yet: repeat `%s` later error=%s", hint, exc)
