"""
The deployments of ``prefect.yaml``, and runs of them in this process.

Those that come with hotswap train and promote anything, by their parameters. A project may have a ``prefect.yaml`` of
its own beside its home, with schedules and parameters of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from flows.machine.processes import this_process
from flows.orchestration import prefect_access
from flows.settings import Settings

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import DeploymentSchedule
    from prefect.client.schemas.responses import DeploymentResponse

POOL = "hotswap"
"""the work pool that the deployments of ``prefect.yaml`` name"""
BUILT_IN = Path(__file__).with_name("prefect.yaml")
_serving: ContextVar[Callable[[str], None] | None] = ContextVar("serving", default=None)


def files(settings: Settings) -> list[Path]:
    """The files of deployments, those of the project last."""
    own = project(settings) / "prefect.yaml"
    return [BUILT_IN, own] if own.is_file() and not own.samefile(BUILT_IN) else [BUILT_IN]


def project(settings: Settings) -> Path:
    """The directory in which runs that nobody starts by a command work."""
    return settings.home.absolute().parent


@contextmanager
def serving(tell: Callable[[str], None]) -> Iterator[None]:
    """What `run` runs during the block are runs of deployments; `tell` gets the id of each when it begins."""
    token = _serving.set(tell)
    try:
        yield
    finally:
        _serving.reset(token)


def run(flow: Flow[..., Any], deployment: str, parameters: Mapping[str, Any]) -> Any:
    """
    The result of the flow in this process: as a run of its deployment in the worker of `hotswap up`, else of its own.

    Raises:
        PrefectUnavailable: Prefect does not make the run.
    """
    tell = _serving.get()
    if tell is None:
        with prefect_access.without_heartbeats():
            return flow(**parameters)
    from prefect.flow_engine import run_flow
    from prefect.states import Pending

    with prefect_access.connected() as client:
        made = client.create_flow_run_from_deployment(
            client.read_deployment_by_name(f"{flow.name}/{deployment}").id,
            parameters=flow.serialize_parameters(dict(parameters)),
            state=Pending(),
        )
        tell(str(made.id))
        client.update_flow_run(made.id, infrastructure_pid=this_process())
    with prefect_access.without_heartbeats():
        return run_flow(flow, flow_run=made, parameters=dict(parameters))


def run_scheduled(flow_run: str) -> None:
    """Run what Prefect has scheduled, in this process; Prefect keeps how it ends."""
    from prefect.flow_engine import run_flow
    from prefect.flows import load_flow_from_entrypoint

    with prefect_access.connected() as client:
        found = client.read_flow_run(UUID(flow_run))
        assert found.deployment_id is not None
        deployment = client.read_deployment(found.deployment_id)
        client.update_flow_run(found.id, infrastructure_pid=this_process())
    assert deployment.entrypoint is not None
    with prefect_access.without_heartbeats():
        run_flow(load_flow_from_entrypoint(deployment.entrypoint), flow_run=found, return_type="state")


def schedules() -> dict[tuple[Any, ...], bool]:
    """Whether each schedule that Prefect knows is active."""
    with prefect_access.connected() as client:
        return {_key(deployment, each): each.active for deployment, each in _schedules(client)}


def toggle(active: Mapping[tuple[Any, ...], bool]) -> None:
    """Pause and resume schedules so that each is as `active` says."""
    with prefect_access.connected() as client:
        for deployment, each in _schedules(client):
            wanted = active.get(_key(deployment, each), each.active)
            if wanted is not each.active:
                client.update_deployment_schedule(deployment.id, each.id, active=wanted)


def _schedules(client: SyncPrefectClient) -> list[tuple[DeploymentResponse, DeploymentSchedule]]:
    return [(deployment, each) for deployment in client.read_deployments() for each in deployment.schedules]


def _key(deployment: DeploymentResponse, schedule: DeploymentSchedule) -> tuple[Any, ...]:
    return deployment.flow_id, deployment.name, schedule.schedule.model_dump_json()
