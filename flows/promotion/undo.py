"""The undo of a promotion: labels, aliases and directory return to what they were before it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from flows.events import Event, Kind, tell
from flows.promotion import labelling
from flows.promotion.attempt import attempt
from flows.promotion.deployment import Deployment
from serving.protocol.errors import HotswapError

log = logging.getLogger(__name__)

NOT_PROMOTED = "not promoted"
"""the journal's entry for a published version whose promotion failed, and that stays published"""


class PromotionUndone(HotswapError):
    """The new version did not prove itself and was taken out again."""

    exit_code = 5


@contextmanager
def undone_on_failure(deployment: Deployment, version: int) -> Iterator[None]:
    """
    Put labels, aliases and directory back if the block fails; the model's lock is held.

    Raises:
        PromotionUndone: The block failed after the version was visible; the message says why.
    """
    labels, aliases = deployment.labels.read(), deployment.registry.aliases(deployment.model)
    try:
        yield
    except BaseException as exc:
        was_published = version in deployment.versions
        reason = str(exc) or type(exc).__name__
        undo(deployment, version, labels, aliases, reason)
        if was_published and isinstance(exc, Exception):
            raise PromotionUndone(f"Version {version} of {deployment.model!r} was taken out again: {reason}") from exc
        raise


@contextmanager
def kept_on_failure(deployment: Deployment, version: int, run_id: str) -> Iterator[None]:
    """
    Record why a published version was not promoted if the block fails; it stays published.

    Raises:
        PromotionUndone: The block failed.
    """
    try:
        yield
    except HotswapError as exc:
        facts = {"version": version, "run_id": run_id, "why": str(exc)}
        attempt("journal", partial(deployment.journal.append, NOT_PROMOTED, **facts))
        tell(deployment.settings, Event(Kind.UNDONE, deployment.model, version, str(exc), {"run_id": run_id}))
        raise PromotionUndone(
            f"Version {version} of {deployment.model!r} is not made stable, and stays as it was: {exc}"
        ) from exc


def undo(
    deployment: Deployment, version: int, labels: Mapping[str, int], aliases: Mapping[str, int], reason: str
) -> None:
    """
    Take a version out again; each step is tried, whatever became of the others.

    Args:
        deployment: Its lock is held.
        version: What was promoted.
        labels: All labels as they were before.
        aliases: The aliases as they were before.
        reason: What journal and registry keep as the reason.
    """
    model, repository = deployment.model, deployment.repository
    if version in deployment.versions:
        attempt("restore labels", lambda: labelling.apply(deployment, labels))
        attempt("retire", lambda: repository.retire(model, version))
        attempt("wait", lambda: deployment.servers.each_running(lambda each: each.wait_gone(model, [version])))
    for alias, at in (attempt("read aliases", lambda: deployment.registry.aliases(model)) or {}).items():
        if at == version:
            before = aliases.get(alias)
            put_back = None if before == version else before
            attempt("restore alias", partial(deployment.registry.set_alias, model, alias, put_back))
    tags = {"promotion": "undone", "promotion_reason": reason[:500]}
    attempt("tag", lambda: deployment.registry.tag_version(model, version, tags))
    attempt("journal", lambda: deployment.journal.append("undo", version=version, why=reason))
    log.warning("promotion undone model=%s version=%d reason=%s", model, version, reason)
    tell(deployment.settings, Event(Kind.UNDONE, model, version, reason, {"labels": dict(labels)}))
