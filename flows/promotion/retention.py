"""Which old versions leave the polled directory?"""

from __future__ import annotations

import logging

from flows.endpoints.preflight import ask_first
from flows.journal import Journal
from flows.promotion import labelling
from flows.promotion.labelling import Change
from flows.settings import Settings
from serving.protocol.errors import HotswapError, VersionNotFound
from serving.repository.store import Repository

log = logging.getLogger(__name__)


def superfluous(settings: Settings, model: str) -> list[int]:
    """The published versions that are neither among the newest nor labelled, lowest first."""
    repository = Repository(settings.models_repo)
    labelled = set(labelling.read(repository, model).values())
    older = repository.versions(model)[: -settings.keep_versions]
    return [version for version in older if version not in labelled]


def tidy(settings: Settings, model: str, dry_run: bool = False, reason: str | None = None) -> Change:
    """
    Retire what is superfluous; with `dry_run` only say what that is.

    Raises:
        VersionNotFound: No version of `model` is published.
    """
    repository = Repository(settings.models_repo)
    with repository.lock(model):
        if not repository.versions(model):
            raise VersionNotFound(f"No version of {model!r} is published in {repository.root}")
        if not dry_run:
            ask_first(settings)
        retired = superfluous(settings, model) if dry_run else _retire_superfluous(settings, model, reason)
    newest = repository.versions(model)[-1]
    return Change("tidy", model, newest, retired=tuple(retired), dry_run=dry_run)


def tidy_after_promotion(settings: Settings, model: str) -> None:
    """Retire what is superfluous; what goes wrong is reported, as the promotion is done."""
    try:
        tidy(settings, model)
    except HotswapError as exc:
        log.warning("old versions not retired: repeat `hotswap tidy %s` model=%s error=%s", model, model, exc)


def _retire_superfluous(settings: Settings, model: str, reason: str | None) -> list[int]:
    """Retire what is superfluous; the model's lock is held."""
    repository, journal = Repository(settings.models_repo), Journal(settings.models_repo, model)
    retired = superfluous(settings, model)
    for version in retired:
        repository.retire(model, version)
        journal.append("retire", version=version, why=reason or f"retention keeps the newest {settings.keep_versions}")
    return retired
