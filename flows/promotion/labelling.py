"""
Moving a label: ``models.config`` is written, the running servers reload it, and the right version must answer to it.

Otherwise all labels return to where they were.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

from flows.endpoints.live_server import LiveServer
from flows.promotion import aliases
from flows.promotion.attempt import attempt
from flows.promotion.change import Change
from flows.promotion.deployment import Deployment
from flows.promotion.labels import STABLE, Protected, validate_label
from flows.promotion.unlabelled import warn_unless_stable
from serving.protocol.errors import InvalidRequest

log = logging.getLogger(__name__)


def set_label(deployment: Deployment, label: str, version: int, reason: str | None = None) -> Change:
    """
    Point `label`, and the registry's alias with it, to a published version.

    Raises:
        VersionNotFound: It is not published.
        LabelNotAssignable: The running server does not have it available.
    """
    validate_label(label)
    with deployment.lock():
        deployment.check_published(version)
        deployment.servers.ask_first(deployment.model)
        with reverted_on_failure(deployment, (label,)):
            change = move(deployment, label, version)
            aliases.point(deployment, label, version)
            deployment.registry.mark_present(deployment.model)
            change.record(deployment, reason)
    warn_unless_stable(deployment)
    return change


def remove_label(deployment: Deployment, label: str, dry_run: bool = False, reason: str | None = None) -> Change:
    """
    Take `label`, and the registry's alias with it, away; with `dry_run` only say from which version.

    Raises:
        InvalidRequest: There is no such label.
        Protected: It is ``stable``, which says what is live.
    """
    validate_label(label)
    model = deployment.model
    if label == STABLE:
        raise Protected(f"Label {label!r} says what is live: move it with `hotswap label {model} {label} VERSION`")
    with deployment.lock():
        labels = deployment.labels.read()
        if label not in labels:
            raise InvalidRequest(f"{model!r} has no label {label!r}; it has: {', '.join(sorted(labels)) or 'none'}")
        version = labels.pop(label)
        if dry_run:
            return Change("unlabel", model, version, label, version, dry_run=True)
        deployment.servers.ask_first(model)
        with reverted_on_failure(deployment, (label,)):
            server = apply(deployment, labels)
            aliases.take_away(deployment.registry, model, (label,))
            change = Change("unlabel", model, version, label, version, server=server)
            change.record(deployment, reason)
    return change


def apply(deployment: Deployment, labels: Mapping[str, int]) -> str | None:
    """Make these all the labels of the model, also at the running servers; the names of those. Its lock is held."""
    deployment.labels.write(labels)

    def take_over(server: LiveServer) -> None:
        server.reload(deployment.repository)
        server.wait_labelled(deployment.model, labels)

    return deployment.servers.each_running(take_over)


def move(deployment: Deployment, label: str, version: int, without: Collection[str] = ()) -> Change:
    """
    Write the label, make a running server take it over, and check that the right version answers to it.

    Args:
        deployment: Its lock is held.
        label: What moves.
        version: Where it moves to.
        without: Labels that `version` loses in the same step.
    """
    model, repository = deployment.model, deployment.repository
    before = deployment.labels.read()
    stamp = deployment.stamp(version)
    with deployment.servers.running() as servers:
        if servers is not None:
            servers.each(lambda server: server.check_available(model, label, version))
            servers.each(lambda server: server.check_answers(model, version, stamp))
        # A server has the files in memory, and would load what is there now at its next start.
        repository.check_files(model, version)
        try:
            kept = {name: at for name, at in before.items() if at != version or name not in without}
            deployment.labels.write({**kept, label: version})
            if servers is not None:
                servers.each(lambda server: server.reload(repository))
                servers.each(lambda server: server.check_label(model, label, version, stamp))
        except BaseException:
            attempt("restore labels", lambda: apply(deployment, before))
            raise
    log.info("label moved model=%s label=%s version=%d previous=%s", model, label, version, before.get(label))
    return Change("label", model, version, label, before.get(label), server=servers.name if servers else None)


@contextmanager
def reverted_on_failure(deployment: Deployment, moving: Sequence[str]) -> Iterator[None]:
    """Put all labels, and the aliases of those `moving`, back if the block fails; the model's lock is held."""
    before = deployment.labels.read()
    with aliases.reverted_on_failure(deployment, moving):
        try:
            yield
        except BaseException:
            if deployment.labels.read() != before:
                attempt("restore labels", lambda: apply(deployment, before))
            raise
