"""Retention: old versions that no label points to leave the polled directory; the newest stay."""

from __future__ import annotations

import logging

from flows.promotion.change import Change
from flows.promotion.deployment import Deployment
from serving.protocol.errors import HotswapError, VersionNotFound

log = logging.getLogger(__name__)


def superfluous(deployment: Deployment) -> list[int]:
    """The published versions that are neither among the newest nor labelled, lowest first."""
    labelled = set(deployment.labels.read().values())
    older = deployment.versions[: -deployment.settings.keep_versions]
    return [version for version in older if version not in labelled]


def tidy(deployment: Deployment, dry_run: bool = False, reason: str | None = None) -> Change:
    """
    Retire what is superfluous; with `dry_run` only say what that is.

    Raises:
        VersionNotFound: No version is published.
    """
    model = deployment.model
    with deployment.lock():
        if not deployment.versions:
            raise VersionNotFound(f"No version of {model!r} is published in {deployment.repository.root}")
        if not dry_run:
            deployment.servers.ask_first()
        retired = superfluous(deployment)
        if not dry_run:
            _retire(deployment, retired, reason)
    return Change("tidy", model, deployment.versions[-1], retired=tuple(retired), dry_run=dry_run)


def tidy_after_promotion(deployment: Deployment) -> None:
    """Retire what is superfluous; a failure is only logged, as the promotion is done."""
    model = deployment.model
    try:
        tidy(deployment)
    except HotswapError as exc:
        log.warning("old versions not retired: repeat `hotswap tidy %s` model=%s error=%s", model, model, exc)


def _retire(deployment: Deployment, versions: list[int], reason: str | None) -> None:
    why = reason or f"retention keeps the newest {deployment.settings.keep_versions}"
    for version in versions:
        deployment.repository.retire(deployment.model, version)
        deployment.journal.append("retire", version=version, why=why)
