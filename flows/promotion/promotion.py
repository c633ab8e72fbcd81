"""
Promotion: the steps by which a version goes live, in their order publish, verify, label.

A flow lists them itself, as `train_and_promote` does, inside `undone_on_failure` from flows.promotion.undo. A version
that is published already, as a canary is, only gets the label.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from flows.events import Event, Kind, tell
from flows.journal import Entry
from flows.promotion import aliases, labelling
from flows.promotion.change import Change
from flows.promotion.deployment import Deployment
from flows.promotion.labels import CANARY, PENDING, STABLE
from serving.protocol.errors import InvalidRequest
from serving.repository.signatures import sign
from serving.repository.stamp import Stamp

PROMOTING = "promoting"
"""the journal's entry before the label of a published version moves, so that an interrupted promotion is finished"""


def publish(deployment: Deployment, version: int, source: Path, stamp: Stamp) -> Path:
    """
    Make `source` visible as a version that no label points to yet, and list the model in ``models.config``.

    Args:
        deployment: Its lock is held.
        version: A number never used before.
        source: A SavedModel.
        stamp: What to keep with it; with a key in the settings it is signed too.
    """
    stamp = _signed(deployment, version, stamp)
    staged = deployment.repository.stage(deployment.model, version, source, stamp)
    facts = {"version": version, "run_id": stamp.run_id, "digest": stamp.digest}
    deployment.journal.append("publish", **facts)
    path = deployment.repository.publish(deployment.model, version, staged)
    deployment.labels.write(deployment.labels.read())
    return path


def _signed(deployment: Deployment, version: int, stamp: Stamp) -> Stamp:
    """The stamp with a signature, which the registry gets too, for agents that fetch the files from there."""
    key = deployment.settings.signing_key_file
    if key is None or stamp.digest is None:
        return stamp
    signature = sign(key, deployment.model, version, stamp.digest)
    deployment.registry.tag_version(deployment.model, version, {"signature": signature})
    return replace(stamp, signature=signature)


def assign_label(deployment: Deployment, version: int, label: str = STABLE, reason: str | None = None) -> Change:
    """Point `label`, and the registry's alias with it, to a verified version; the model's lock is held."""
    change = labelling.move(deployment, label, version)
    aliases.follow(deployment, version, (label,))
    stamp = deployment.stamp(version)
    facts = {"previous": change.previous, "run_id": stamp.run_id, "digest": stamp.digest, "why": reason}
    _record(deployment, version, label, facts)
    return replace(change, action="promote")


def check_promotable(deployment: Deployment, version: int) -> Path:
    """
    The files of a published version that can be made the stable one.

    Raises:
        VersionNotFound: It is not published.
        InvalidRequest: It is the stable one.
        IncompleteSavedModel: Its files are no longer those that were published.
    """
    deployment.check_published(version)
    if deployment.labels.read().get(STABLE) == version:
        raise InvalidRequest(f"Version {version} of {deployment.model!r} is the stable one already")
    deployment.repository.check_files(deployment.model, version)
    return deployment.repository.path(deployment.model, version)


def make(
    deployment: Deployment,
    version: int,
    label: str,
    run_id: str,
    reason: str | None = None,
    approved_by: str | None = None,
) -> Change:
    """
    Give a published and verified version its label; the model's lock is held.

    It waits for no approval any more, and a stable one is no canary, so those labels go.
    """
    with labelling.reverted_on_failure(deployment, (label, *_given_up(label))):
        if label == STABLE:
            deployment.journal.append(PROMOTING, version=version, previous=deployment.labels.read().get(STABLE))
        change = labelling.move(deployment, label, version, without=_given_up(label))
        digest = deployment.stamp(version).digest
        facts = {"previous": change.previous, "run_id": run_id, "digest": digest, "why": reason}
        _record_made(deployment, version, label, {**facts, "approved_by": approved_by})
    return replace(change, action="promote")


def _given_up(label: str) -> tuple[str, ...]:
    """The labels that a version loses when it gets this one."""
    return (CANARY, PENDING) if label == STABLE else (PENDING,)


def unfinished(entries: Sequence[Entry], labels: Mapping[str, int]) -> Entry | None:
    """
    The entry that began a promotion which was interrupted, if it is the last one.

    Of the promotion of a published version nothing has changed before the label has moved.
    """
    last = entries[-1] if entries else None
    if last is None or last.version is None:
        return None
    moved = last.action == PROMOTING and last.version == labels.get(STABLE)
    return last if last.action == "publish" or moved else None


def finish(deployment: Deployment, begun: Entry, why: str) -> bool:
    """
    Finish an interrupted promotion whose label has moved, as that version was verified; whether it could be finished.

    Args:
        deployment: Its lock is held.
        begun: As `unfinished` found it.
        why: What the journal keeps as the reason.
    """
    version = begun.version
    assert version is not None
    if begun.action == PROMOTING:
        labelling.move(deployment, STABLE, version, without=_given_up(STABLE))
        _record_made(deployment, version, STABLE, {"why": why})
        return True
    carried = tuple(label for label in deployment.labels.carried_by(version) if label != PENDING)
    if carried:
        aliases.follow(deployment, version, carried)
    for label in carried:
        _record(deployment, version, label, {"why": why})
    return bool(carried)


def _record_made(deployment: Deployment, version: int, label: str, facts: Mapping[str, Any]) -> None:
    """Record in registry and journal that a published version has got its label."""
    aliases.follow_made(deployment, version, label, _given_up(label))
    _record(deployment, version, label, {"unlabelled": list(_given_up(label)), **facts})


def _record(deployment: Deployment, version: int, label: str, facts: Mapping[str, Any]) -> None:
    """Write into the journal that a version has its label, and let those know who want to be told."""
    deployment.journal.append("promote", version=version, label=label, **facts)
    told = {"label": label, **{key: facts.get(key) for key in ("previous", "run_id")}}
    tell(deployment.settings, Event(Kind.PROMOTED, deployment.model, version, facts.get("why"), told))
