"""The reconcile flow, which makes all sides of every model agree: for Prefect's page, and for `hotswap up`."""

from __future__ import annotations

import dataclasses

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.events.delivery import flushed
from flows.orchestration import open_runs
from flows.orchestration.prefect_records import followed, is_of_deployment, keep_table, without_secrets
from flows.promotion.deployment import Deployment
from flows.reconciliation.repair import Repair, repair
from flows.reconciliation.state import known_models
from flows.settings import Settings, apply_environment, load_settings


@flow(name="reconcile", flow_run_name="reconcile")
@followed
def reconcile(model: str | None = None, dry_run: bool = False) -> list[Repair]:
    """
    Make registry, directory, ``models.config``, journal and server agree.

    Args:
        model: The model's name; all models when not given.
        dry_run: Only say what would be done.
    """
    settings = load_settings()
    apply_environment(settings)
    if not dry_run:
        open_runs.end_in_prefect(settings)
    names = known_models(settings) if model is None else [model]
    with flushed(settings, is_of_deployment()):
        repairs = [repair_model(settings, name, dry_run) for name in names]
    rows = [
        {**dataclasses.asdict(finding), "repaired": finding in each.repaired}
        for each in repairs
        for finding in (*each.repaired, *each.remaining)
    ]
    keep_table("reconcile", rows, "What did not agree")
    return repairs


@task(cache_policy=NO_CACHE)
@without_secrets
def repair_model(settings: Settings, model: str, dry_run: bool) -> Repair:
    """Repair one model."""
    return repair(Deployment(settings, model), dry_run)
