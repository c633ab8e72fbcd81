"""The flow `drift`, which does what `hotswap drift` does: from Prefect's page, by a schedule, or by the command."""

from __future__ import annotations

from typing import Unpack

from prefect import State, flow, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed

from flows.drift.report import DriftReport, Verdict, table_rows
from flows.events.delivery import flushed
from flows.orchestration.prefect_records import followed, is_of_deployment, keep_report, without_secrets
from flows.parameters import DriftParameters, spelled_out
from flows.promotion.deployment import Deployment
from flows.reports.drift import Found, asked_of, examine
from flows.settings import apply_environment, load_settings
from serving.protocol.redaction import redacted


@flow(name="drift", flow_run_name="drift of {model}")
@followed
@spelled_out
def drift(model: str, **parameters: Unpack[DriftParameters]) -> DriftReport | State[DriftReport]:
    """
    Compare what clients ask a model with the data that it was trained on.

    The run ends in the state ``Drifted`` where that has changed.

    Args:
        model: The model's name.
    """
    settings = load_settings()
    apply_environment(settings)
    with flushed(settings, is_of_deployment()):
        found = compare(Deployment(settings, model), parameters)
        report = found.report
        keep_report("drift", model, found.page, list(table_rows(report.all_columns)), found.picture)
    if report.verdict is Verdict.DRIFTED:
        return Completed(name="Drifted", message=redacted(report.reason), data=report)
    return report


@task(cache_policy=NO_CACHE)
@without_secrets
def compare(deployment: Deployment, parameters: DriftParameters) -> Found:
    """Compare, and record it in MLflow."""
    return examine(deployment, asked_of(parameters))
