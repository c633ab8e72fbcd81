"""
The trainings that start by themselves: deployments of Prefect, each with a model's parameters and what starts it.

They are made from the deployment ``train`` of ``prefect.yaml``, so the worker serves them as it serves that, and
Prefect's page shows, changes, pauses and starts them. Time is Prefect's own schedule and drift an automation; data that
changes is a tag of the deployment, which the operator follows (`flows.local.data_watch`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from flows.orchestration import prefect_access
from serving.protocol.errors import HotswapError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.responses import DeploymentResponse

_TEMPLATE = "train-and-promote/train"
DRIFTED = "hotswap.drifted"
"""the event that `hotswap drift` tells Prefect"""
_TAG = "scheduled by hotswap"
_DATA = "when changed: "
DRIFT_TAG = "when drifted"
"""of a deployment that an automation of its own runs when its model has drifted"""
SCHEDULE = "hotswap.schedule"
"""what such a deployment is related to an event of drift as, while it is not paused: Prefect's action runs it anyway"""


class InvalidTrigger(HotswapError):
    """A training cannot be started like this."""


@dataclass(frozen=True, slots=True)
class Trigger:
    """What starts the training of a model."""

    model: str
    cron: str | None = None
    every_hours: float | None = None
    timezone: str = "UTC"
    when_changed: tuple[str, ...] = ()
    """absolute paths of files and folders"""
    when_drifted: bool = False

    @property
    def name(self) -> str:
        """Of its deployment and its automation."""
        return f"scheduled-{self.model}"

    @property
    def described(self) -> str:
        """In words."""
        said = [f"by {self.cron} ({self.timezone})" if self.cron else ""]
        said += [f"every {self.every_hours:g} hours" if self.every_hours else ""]
        said += [f"when {path} has changed" for path in self.when_changed]
        said += ["when its data has drifted" if self.when_drifted else ""]
        return " and ".join(filter(None, said))


@dataclass(frozen=True, slots=True)
class Watched:
    """A deployment that runs when data changes."""

    deployment: str
    """its id"""
    name: str
    paths: tuple[Path, ...]


def install(trigger: Trigger, parameters: Mapping[str, Any]) -> str:
    """
    Make or replace the deployment of a trigger; its id.

    Raises:
        InvalidTrigger: The schedule cannot be understood, or there is no deployment to make it from.
        PrefectUnavailable: Prefect cannot be used.
    """
    schedules = _schedules(trigger)
    with prefect_access.connected() as client:
        template = _template(client)
        made = client.create_deployment(
            template.flow_id,
            trigger.name,
            description=f"Trains {trigger.model} {trigger.described}.",
            schedules=schedules,
            parameters=dict(parameters),
            tags=[
                _TAG,
                *(f"{_DATA}{path}" for path in trigger.when_changed),
                *([DRIFT_TAG] if trigger.when_drifted else []),
            ],
            concurrency_limit=1,
            work_pool_name=template.work_pool_name,
            entrypoint=template.entrypoint,
            path=template.path,
            parameter_openapi_schema=template.parameter_openapi_schema,
            enforce_parameter_schema=True,
        )
        _automate(client, trigger, made)
    return str(made)


def remove(model: str) -> None:
    """
    Take the trigger of a model away.

    Raises:
        InvalidTrigger: It has none.
        PrefectUnavailable: Prefect cannot be used.
    """
    name = Trigger(model).name
    with prefect_access.connected() as client:
        found = [each for each in _deployments(client) if each.name == name]
        if not found:
            raise InvalidTrigger(f"The training of {model!r} is not scheduled: `hotswap schedule` lists what is")
        _automate(client, Trigger(model), found[0].id)
        client.delete_deployment(found[0].id)
        _delete_waiting(client, found[0].id)


def installed() -> list[dict[str, Any]]:
    """
    Every trigger, as a table shows it.

    Raises:
        PrefectUnavailable: Prefect cannot be used.
    """
    with prefect_access.connected() as client:
        return [
            {
                "model": each.name.removeprefix(Trigger("").name),
                "when": (each.description or "").partition(" ")[2].partition(" ")[2].rstrip("."),
                "deployment": str(each.id),
                "paused": each.paused,
            }
            for each in _deployments(client)
        ]


def watched() -> list[Watched]:
    """
    The deployments that run when data changes, of any ``prefect.yaml`` too.

    Raises:
        PrefectUnavailable: Prefect cannot be used.
    """
    with prefect_access.connected() as client:
        return [
            Watched(str(each.id), each.name, paths)
            for each in client.read_deployments()
            if not each.paused and (paths := tuple(_paths(each.tags)))
        ]


def start(deployment: str, key: str) -> str:
    """
    Begin a run of a deployment; the same `key` begins it once. The id of the run.

    Raises:
        PrefectUnavailable: Prefect cannot be used.
    """
    with prefect_access.connected() as client:
        run = client.create_flow_run_from_deployment(UUID(deployment), idempotency_key=key, tags=["data changed"])
    return str(run.id)


def _paths(tags: Sequence[str]) -> list[Path]:
    return [Path(tag.removeprefix(_DATA)) for tag in tags if tag.startswith(_DATA)]


def _deployments(client: SyncPrefectClient) -> list[DeploymentResponse]:
    return [each for each in client.read_deployments() if _TAG in each.tags]


def _delete_waiting(client: SyncPrefectClient, deployment: UUID) -> None:
    """Delete the runs that wait for the one before them to end, which Prefect leaves when it deletes the others."""
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterDeploymentId,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType

    asked = FlowRunFilter(
        deployment_id=FlowRunFilterDeploymentId(any_=[deployment]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
    )
    for each in client.read_flow_runs(flow_run_filter=asked):
        client.delete_flow_run(each.id)


def _template(client: SyncPrefectClient) -> DeploymentResponse:
    from prefect.exceptions import ObjectNotFound

    try:
        return client.read_deployment_by_name(_TEMPLATE)
    except ObjectNotFound as exc:
        raise InvalidTrigger(
            f"Prefect has no deployment {_TEMPLATE}: `hotswap up` makes it, or `prefect deploy --all`"
        ) from exc


def _schedules(trigger: Trigger) -> list[DeploymentScheduleCreate]:
    from datetime import timedelta

    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
    from pydantic import ValidationError

    found: list[Any] = []
    try:
        if trigger.cron:
            found.append(CronSchedule(cron=trigger.cron, timezone=trigger.timezone))
        if trigger.every_hours:
            interval = timedelta(hours=trigger.every_hours)
            found.append(IntervalSchedule(interval=interval, timezone=trigger.timezone))
    except ValidationError as exc:
        said = exc.errors()[0]["msg"].removeprefix("Value error, ")
        raise InvalidTrigger(f"The schedule cannot be used: {said}") from exc
    return [DeploymentScheduleCreate(schedule=each) for each in found]


def _automate(client: SyncPrefectClient, trigger: Trigger, deployment: UUID) -> None:
    """Let the deployment run when its model's data has drifted, or no longer."""
    from prefect.automations import AutomationCore
    from prefect.events.actions import RunDeployment
    from prefect.events.schemas.automations import EventTrigger

    for each in client.read_automations_by_name(trigger.name):
        client.delete_automation(each.id)
    if trigger.when_drifted:
        resource: Any = {"prefect.resource.id": f"hotswap.model.{trigger.model}"}
        related: Any = {"prefect.resource.id": f"{SCHEDULE}.{deployment}"}
        automation = AutomationCore(
            name=trigger.name,
            description=f"Trains {trigger.model} again when its data has drifted.",
            trigger=EventTrigger(expect={DRIFTED}, match=resource, match_related=related, threshold=1),
            actions=[RunDeployment(source="selected", deployment_id=deployment, parameters=None, job_variables=None)],
        )
        client.create_automation(automation)
