"""The repair of what does not agree as a flow, for those who start it from Prefect, and for `hotswap up`."""

from __future__ import annotations

import dataclasses

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.orchestration import open_runs
from flows.orchestration.prefect_records import followed, keep_table, without_secrets
from flows.reconciliation import drift
from flows.settings import Settings, apply_environment, load_settings


@flow(name="reconcile", flow_run_name="reconcile")
@followed
def reconcile(model: str | None = None, dry_run: bool = False) -> list[drift.Repair]:
    """
    Make registry, directory, ``models.config``, journal and server agree.

    Args:
        model: The model's name; all models when not given.
        dry_run: Only say what would be done.
    """
    settings = load_settings()
    apply_environment(settings)
    if not dry_run:
        open_runs.tell_prefect(settings)
    names = drift.models(settings) if model is None else [model]
    repairs = [mend(settings, name, dry_run) for name in names]
    rows = [
        {**dataclasses.asdict(finding), "mended": finding in repair.mended}
        for repair in repairs
        for finding in (*repair.mended, *repair.left)
    ]
    keep_table("reconcile", rows, "What did not agree")
    return repairs


@task(cache_policy=NO_CACHE)
@without_secrets
def mend(settings: Settings, model: str, dry_run: bool) -> drift.Repair:
    """Repair one model."""
    return drift.repair(settings, model, dry_run)
