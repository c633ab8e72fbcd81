"""The work pool of Prefect that the worker of `hotswap up` serves: what is due there, and what was cancelled."""

from __future__ import annotations

import socket
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from typing import Self
from uuid import UUID

import psutil
from prefect.client.schemas import OrchestrationResult
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import ObjectAlreadyExists
from prefect.states import Pending

from flows.machine.processes import this_process
from flows.orchestration import prefect_access

_HEARTBEAT_SECONDS = 30.0
_CLOCK_SECONDS = 60.0
"""by how much the times of Prefect and of this machine may differ"""
_OPEN = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]


class WorkPool:
    """A connection to Prefect about one pool, which is made where there is none."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._worker = f"hotswap on {socket.gethostname()}"

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        self._client = self._stack.enter_context(prefect_access.client())
        with prefect_access.translated(), suppress(ObjectAlreadyExists):
            self._client.create_work_pool(WorkPoolCreate(name=self.name, type="process"))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def beat(self) -> None:
        """
        Tell Prefect that somebody serves the pool.

        Raises:
            PrefectUnavailable: It cannot be told.
        """
        with prefect_access.translated():
            self._client.send_worker_heartbeat(self.name, self._worker, _HEARTBEAT_SECONDS)

    def claim_due(self) -> list[str]:
        """
        The runs that have to begin now, and that nobody else begins.

        Raises:
            PrefectUnavailable: It cannot be asked.
        """
        with prefect_access.translated():
            found = self._client.get_scheduled_flow_runs_for_work_pool(self.name, scheduled_before=datetime.now(UTC))
            return [str(each.flow_run.id) for each in found if self._claim(each.flow_run.id)]

    def _claim(self, flow_run: UUID) -> bool:
        answer: OrchestrationResult[None] = self._client.set_flow_run_state(flow_run, Pending())
        if answer.state is None or answer.state.type is not StateType.PENDING:
            return False
        self._client.update_flow_run(flow_run, infrastructure_pid=this_process())
        return True

    def cancelled(self) -> set[str]:
        """
        The runs that somebody has cancelled and that still run.

        Raises:
            PrefectUnavailable: It cannot be asked.
        """
        return {str(each.id) for each in self._runs([StateType.CANCELLING])}

    def end(self, flow_run: str) -> None:
        """
        See that a run whose process has gone is shown as crashed, or as cancelled where that was asked for.

        Raises:
            PrefectUnavailable: It cannot be told.
        """
        prefect_access.end_run(flow_run)

    def end_gone(self) -> None:
        """
        End the runs of this machine whose processes have gone.

        Raises:
            PrefectUnavailable: It cannot be told.
        """
        here = f"{socket.gethostname()}:"
        for each in self._runs(_OPEN):
            where = each.infrastructure_pid or ""
            if where.startswith(here) and _has_gone(int(where.removeprefix(here)), each.start_time):
                self.end(str(each.id))

    def _runs(self, states: list[StateType]) -> list[FlowRun]:
        with prefect_access.translated():
            return self._client.read_flow_runs(
                flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=states))),
                work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[self.name])),
            )


def _has_gone(pid: int, began: datetime | None) -> bool:
    """Whether the process of a run has ended; one of the same number that began later is another."""
    try:
        return began is not None and psutil.Process(pid).create_time() > began.timestamp() + _CLOCK_SECONDS
    except psutil.NoSuchProcess:
        return True
