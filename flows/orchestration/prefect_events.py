"""
Records events in Prefect, for its page and its automations.

An event is sent by a request that the server answers: `prefect.events.emit_event` hands it to a thread and says nothing
of what becomes of it. It is related to the deployments that train the model, so that an automation can run or pause
one of them without naming it ("inferred"), which is the first for Prefect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from flows.orchestration import prefect_access
from flows.orchestration.prefect_access import PrefectUnavailable
from flows.orchestration.prefect_server import find_running_prefect
from flows.orchestration.triggers import DRIFT_TAG, DRIFTED, SCHEDULE, Trigger
from flows.settings import Settings

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.responses import DeploymentResponse

_TRAINING = "train-and-promote"


def record_event(
    settings: Settings, id: str, name: str, resource: Mapping[str, str], occurred: str, payload: Mapping[str, Any]
) -> None:
    """
    Record an event in the Prefect server that is configured, or in that of `hotswap up`.

    Args:
        settings: Where that is.
        id: A UUID; the same for the same event, if it has to be sent again.
        name: What has happened.
        resource: The labels of what it has happened to; ``prefect.resource.name`` is the model.
        occurred: When, in ISO 8601.
        payload: What else is known, as ``json`` can write it.

    Raises:
        PrefectUnavailable: No server answers, or it does not take the event.
    """
    if not find_running_prefect(settings):
        raise PrefectUnavailable("No Prefect server answers: `hotswap up` starts one")
    with prefect_access.translated(), prefect_access.client() as asked:
        deployments = _deployments(asked, resource["prefect.resource.name"])
        event = {
            "id": id,
            "event": name,
            "resource": dict(resource),
            "related": _related(name, _in_order(asked, deployments, occurred)),
            "occurred": occurred,
            "payload": dict(payload),
        }
        asked.request("POST", "/events", json=[event]).raise_for_status()


def _related(event: str, deployments: Sequence[DeploymentResponse]) -> list[dict[str, str]]:
    """
    What an automation may run or pause; on drift, none that is paused.

    Where a deployment has an automation of its own for drift, only that may run it: to the others it is no deployment.
    """
    kind = "prefect.deployment"
    if event == DRIFTED:
        if own := [each for each in deployments if DRIFT_TAG in each.tags]:
            kind, deployments = SCHEDULE, own
        deployments = [each for each in deployments if not each.paused]
    return [
        {
            "prefect.resource.id": f"{kind}.{each.id}",
            "prefect.resource.name": each.name,
            "prefect.resource.role": kind.rpartition(".")[2],
        }
        for each in deployments
    ]


def _deployments(asked: SyncPrefectClient, model: str) -> list[DeploymentResponse]:
    """The deployments that train a model: its schedule, and those with its name as recipe, as file of it, or as tag."""
    from prefect.client.schemas.filters import FlowFilter, FlowFilterName

    found = asked.read_deployments(flow_filter=FlowFilter(name=FlowFilterName(any_=[_TRAINING])))
    names = {model, Trigger(model).name}
    return [
        each
        for each in found
        if not names.isdisjoint((each.name, *each.tags, PurePath(str(each.parameters.get("recipe", ""))).stem))
    ]


def _in_order(
    asked: SyncPrefectClient, deployments: Sequence[DeploymentResponse], occurred: str
) -> list[DeploymentResponse]:
    """Those that are paused last; before them the one whose run began last, as that is what the event is about."""
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId, FlowRunFilterStartTime
    from prefect.client.schemas.sorting import FlowRunSort

    begun = FlowRunFilter(
        deployment_id=FlowRunFilterDeploymentId(any_=[each.id for each in deployments]),
        start_time=FlowRunFilterStartTime.model_validate({"before_": occurred}),
    )
    newest = asked.read_flow_runs(flow_run_filter=begun, sort=FlowRunSort.START_TIME_DESC, limit=1)
    ran_last = {each.deployment_id for each in newest}
    return sorted(deployments, key=lambda each: (each.paused, each.id not in ran_last))
