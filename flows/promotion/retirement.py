"""Retirement: a version leaves the polled directory, and can be restored to it later."""

from __future__ import annotations

from collections.abc import Iterable

from flows.promotion import aliases, labelling
from flows.promotion.change import Change
from flows.promotion.deployment import Deployment
from flows.promotion.labels import Protected
from flows.promotion.unlabelled import warn_unless_stable


def retire(
    deployment: Deployment, version: int, force: str | None = None, dry_run: bool = False, reason: str | None = None
) -> Change:
    """
    Take a version out of the polled directory.

    Args:
        deployment: What it is a version of.
        version: A published version.
        force: Why to retire it although it is the last one or carries a label, which is then taken away.
        dry_run: Only say what would change.
        reason: Why, if `force` does not say it.

    Raises:
        Protected: It is the last one or carries a label, and `force` is not given.
    """
    model = deployment.model
    with deployment.lock():
        deployment.check_published(version)
        carried = deployment.labels.carried_by(version)
        if not force:
            _check_unused(deployment, version, carried)
        if dry_run:
            return Change("retire", model, version, retired=(version,), dry_run=True)
        deployment.servers.ask_first()
        if carried:
            _take_labels_away(deployment, carried)
        deployment.repository.retire(model, version)
        server = deployment.servers.each_running(lambda server: server.wait_gone(model, [version]))
        change = Change("retire", model, version, retired=(version,), server=server)
        change.record(deployment, force or reason)
    return change


def restore(deployment: Deployment, version: int, reason: str | None = None) -> Change:
    """
    Put a retired version, or one of a removed model, back into the polled directory; no label moves.

    Raises:
        HotswapError: The running server could not load it; it is retired again.
    """
    model, repository = deployment.model, deployment.repository
    with deployment.lock():
        deployment.servers.ask_first(model)
        repository.restore(model, version)
        try:
            if not deployment.labels.is_configured:
                labelling.apply(deployment, {})
            server = deployment.servers.each_running(lambda server: server.check_back(repository, model, version))
        except BaseException:
            repository.retire(model, version)
            raise
        change = Change("restore", model, version, server=server)
        change.record(deployment, reason)
    warn_unless_stable(deployment)
    return change


def _check_unused(deployment: Deployment, version: int, carried: tuple[str, ...]) -> None:
    if not carried and deployment.versions != [version]:
        return
    use = f"carries label {', '.join(map(repr, carried))}" if carried else "is the last one published"
    raise Protected(f"Version {version} of {deployment.model!r} {use}: to retire it all the same, add --force REASON")


def _take_labels_away(deployment: Deployment, carried: Iterable[str]) -> None:
    registry = deployment.open_registry(may_be_unknown=True)
    rest = {label: at for label, at in deployment.labels.read().items() if label not in carried}
    labelling.apply(deployment, rest)
    aliases.take_away(registry, deployment.model, carried)
