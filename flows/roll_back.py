"""The flow `roll-back`, which does what `hotswap rollback` does, started from Prefect."""

from __future__ import annotations

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.events.delivery import flushed
from flows.orchestration.prefect_records import followed, is_of_deployment, without_secrets
from flows.promotion import rollback
from flows.promotion.change import Change
from flows.promotion.deployment import Deployment
from flows.settings import apply_environment, load_settings


@flow(name="roll-back", flow_run_name="roll back {model}")
@followed
def roll_back(model: str, to: int | None = None, reason: str | None = None) -> Change:
    """
    Point label and alias of `model` to an earlier version and retire the later ones.

    Args:
        model: The model's name.
        to: The version to go back to; the one before the live one when not given.
        reason: What the journal keeps as the reason.
    """
    settings = load_settings()
    apply_environment(settings)
    with flushed(settings, is_of_deployment()):
        return move_back(Deployment(settings, model), to, reason)


@task(cache_policy=NO_CACHE)
@without_secrets
def move_back(deployment: Deployment, to: int | None, reason: str | None = None) -> Change:
    """Move label, directories and alias."""
    return rollback.rollback(deployment, to, reason=reason)
