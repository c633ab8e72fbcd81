"""
The question to a person, as Prefect asks it: the flow run is paused, and its page has a form and the button "Resume".

The process goes on waiting, so this is done with Prefect's client and not by `pause_flow_run`: that one gives up when
the server does not answer for a moment, and has no way to stop for another reason.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from prefect import State
from prefect.input import RunInput, keyset_from_paused_state, read_flow_run_input
from prefect.runtime import flow_run
from prefect.states import Paused
from pydantic import Field

from flows.orchestration.prefect_access import PrefectUnavailable, client, translated

log = logging.getLogger(__name__)

_KEY = "approval"
_SOMEBODY = "somebody on Prefect's page"
_GRACE_SECONDS = 3600
"""beyond the wait, within which Prefect itself would end the run as failed"""


class Approval(RunInput):
    """The form."""

    approve: bool = Field(True, description="Whether the version gets its label; if not, it is taken out again.")
    by: str = Field("", description="Who says so.")
    reason: str = Field("", description="Why; the journal keeps it.")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a person has said."""

    approved: bool
    by: str
    reason: str = ""


def ask(question: str, seconds: float) -> None:
    """
    Pause this flow run.

    Args:
        question: What the page shows above the form.
        seconds: How long an answer is waited for.

    Raises:
        PrefectUnavailable: Prefect does not take it.
    """
    state: State[Any] = Paused(timeout_seconds=int(seconds) + _GRACE_SECONDS, reschedule=False, pause_key=_KEY)
    keyset = keyset_from_paused_state(state)
    state.state_details.run_input_keyset = {str(name): key for name, key in keyset.items()}
    form = Approval.with_initial_data(description=question)
    with translated(), client() as asked:
        form.save(keyset, UUID(flow_run.id))
        result = asked.set_flow_run_state(UUID(flow_run.id), state)
    if result.state is None or not result.state.is_paused():
        raise PrefectUnavailable(f"Prefect does not pause this run: {result.details}")


def answered() -> Answer | None:
    """
    The answer, once there is one; None as long as there is none or Prefect does not answer.

    Raises:
        KeyboardInterrupt: The flow run was cancelled on Prefect's page.
    """
    try:
        with translated(), client() as asked:
            state = asked.read_flow_run(UUID(flow_run.id)).state
            if state is None or state.is_paused():
                return None
            if not state.is_running():
                raise KeyboardInterrupt  # it was cancelled there
            keyset = keyset_from_paused_state(Paused(pause_key=_KEY))
            filled: Any = read_flow_run_input(keyset["response"], UUID(flow_run.id))
            form = Approval(**(filled or {}))
    except PrefectUnavailable as exc:
        log.info("still waiting for an approval error=%s", exc)
        return None
    return Answer(form.approve, form.by or _SOMEBODY, form.reason)


def answer(flow_run_id: str, api_url: str, given: Answer) -> None:
    """
    Give the answer to a flow run that waits for it.

    Raises:
        PrefectUnavailable: Prefect at `api_url` does not take it.
    """
    os.environ["PREFECT_API_URL"] = api_url
    filled = {"approve": given.approved, "by": given.by, "reason": given.reason}
    with translated(), client() as asked:
        result = asked.resume_flow_run(UUID(flow_run_id), filled)
    if result.state is None or not result.state.is_running():
        why = getattr(result.details, "reason", "") or "it has ended"
        raise PrefectUnavailable(f"The flow run {flow_run_id} does not take an answer: {why}")


def seconds_until(moment: str) -> float:
    """From now until a time in ISO 8601."""
    return (datetime.fromisoformat(moment) - datetime.now(UTC)).total_seconds()
