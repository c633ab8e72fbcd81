"""
Access to the Prefect server, and its failures in one sentence each, with the next step.

Prefect's own client is asked, so that address, key and certificates count as they do for Prefect.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from flows.user_code import described
from serving.protocol.errors import HotswapError
from serving.protocol.redaction import redacted

if TYPE_CHECKING:
    from prefect import State
    from prefect.client.orchestration import SyncPrefectClient

_REFUSED = (401, 403)
_FLUSH_SECONDS = 10.0
_read: tuple[object, ...] = ()
"""what the settings were read from last"""


class PrefectUnavailable(HotswapError):
    """The Prefect server cannot be used."""


@contextmanager
def client() -> Iterator[SyncPrefectClient]:
    """A client of the API that ``PREFECT_API_URL`` names now; Prefect's own settings are those of its import."""
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings

    url = os.environ["PREFECT_API_URL"]
    # Settings that are made anew take a tenth of a second.
    settings = nullcontext() if PREFECT_API_URL.value() == url else temporary_settings({PREFECT_API_URL: url})
    with settings, get_client(sync_client=True) as asked:
        yield asked


@contextmanager
def connected() -> Iterator[SyncPrefectClient]:
    """
    As `client`; what goes wrong in the block is told in one sentence.

    Raises:
        PrefectUnavailable: Prefect cannot be used.
    """
    with translated(), client() as each:
        yield each


def read_settings() -> None:
    """
    Let Prefect read its settings anew, which it does by itself only when it is imported.

    They come from the environment and from files of the working directory; where both are those of the last time, they
    are not read again.
    """
    global _read
    from prefect.context import refresh_global_settings_context

    now = (Path.cwd(), *sorted(each for each in os.environ.items() if each[0].startswith("PREFECT_")))
    if now != _read:
        refresh_global_settings_context()
        _read = now


@contextmanager
def without_heartbeats() -> Iterator[None]:
    """
    Flow runs of the block send none, unless a setting asks for them: their end waits for the thread that does, up to a
    second. That the process of one has gone is known by its lock (`flows.orchestration.open_runs`).
    """
    from prefect.context import SettingsContext, get_settings_context

    now = get_settings_context()
    if "heartbeat_frequency" in now.settings.flows.model_fields_set:
        yield
        return
    runs = now.settings.flows.model_copy(update={"heartbeat_frequency": None})
    with SettingsContext(profile=now.profile, settings=now.settings.model_copy(update={"flows": runs})):
        yield


def flush() -> None:
    """Send the logs and events that are on their way."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for worker in (APILogWorker, EventsWorker):
        worker.drain_all(timeout=_FLUSH_SECONDS)


def check() -> None:
    """
    Ask the server something that only Prefect answers, to whom it knows.

    Raises:
        PrefectUnavailable: It does not answer, or not to us.
    """
    with connected() as asked:
        asked.api_version()


def connect_beside() -> None:
    """
    As `check`, by each kind of client that a run of a deployment asks the server by.

    Raises:
        PrefectUnavailable: It does not answer, or not to us.
    """
    import asyncio

    from prefect.client.orchestration import get_client
    from prefect.events.clients import get_events_subscriber

    async def ask() -> None:
        async with get_client() as asked, get_events_subscriber(reconnection_attempts=0):
            await asked.api_version()

    check()
    with translated():
        asyncio.run(ask())


def is_usable() -> bool:
    """Whether `check` passes."""
    try:
        check()
    except PrefectUnavailable:
        return False
    return True


def is_running(flow_run: str) -> bool:
    """
    Whether Prefect has this flow run as running.

    Raises:
        PrefectUnavailable: It cannot be asked.
    """
    with connected() as asked:
        return _is_going(asked, flow_run)


def end_run(flow_run: str) -> None:
    """
    Make a flow run whose process has gone a crashed one, or a cancelled one where that was asked for.

    One that has ended already, or that Prefect does not know, stays as it is.

    Raises:
        PrefectUnavailable: Prefect cannot be reached.
    """
    from prefect.states import Cancelled, Crashed

    with connected() as asked:
        state = _state(asked, flow_run)
        if state is not None and not state.is_final():
            ended: State[Any] = Cancelled() if state.is_cancelling() else Crashed(message="Its process has gone.")
            asked.set_flow_run_state(UUID(flow_run), ended, force=True)


def cancel_run(flow_run: str) -> None:
    """
    Show a run that was interrupted as cancelled, which Prefect itself shows as crashed.

    Raises:
        PrefectUnavailable: Prefect cannot be reached.
    """
    from prefect.states import Cancelled

    with connected() as asked:
        state = _state(asked, flow_run)
        if state is not None and (state.is_crashed() or not state.is_final()):
            asked.set_flow_run_state(UUID(flow_run), Cancelled(), force=True)


def _is_going(asked: SyncPrefectClient, flow_run: str) -> bool:
    state = _state(asked, flow_run)
    return state is not None and not state.is_final()


def _state(asked: SyncPrefectClient, flow_run: str) -> State[Any] | None:
    from prefect.exceptions import ObjectNotFound

    try:
        return asked.read_flow_run(UUID(flow_run)).state
    except (ObjectNotFound, ValueError):
        return None


@contextmanager
def translated() -> Iterator[None]:
    """An error in the block, which asks Prefect, is raised as `PrefectUnavailable` with its sentence."""
    try:
        yield
    except Exception as exc:
        raise PrefectUnavailable(explain(exc)) from exc


def explain(exc: BaseException) -> str:
    """The sentence for an error that came out of Prefect or its HTTP client."""
    where = f"Prefect at {redacted(os.environ.get('PREFECT_API_URL', 'its configured address'))}"
    status = getattr(getattr(exc, "response", None), "status_code", None)
    if status in _REFUSED:
        return (
            f"{where} does not accept the credentials, status {status}: "
            "set HOTSWAP_UI_USER and HOTSWAP_UI_PASSWORD_FILE as `hotswap up` has them, PREFECT_API_AUTH_STRING for a "
            "server elsewhere, or PREFECT_API_KEY for Prefect Cloud"
        )
    if status in (404, 405, 422):
        return (
            f"{where} does not know this request, status {status}: see that PREFECT_API_URL ends in /api and that "
            f"the server's release is not older than the client's, {_release()}"
        )
    if status is not None:
        return f"{where} failed, status {status}: see its log"
    if any(word in type(exc).__name__ for word in ("Connect", "Timeout", "Protocol", "ReadError", "WriteError")):
        return f"{where} does not answer ({type(exc).__name__}): start it with `hotswap up`, or unset PREFECT_API_URL"
    return f"{where} cannot be used ({redacted(described(exc))}): check the variables that begin with PREFECT_"


def _release() -> str:
    from importlib.metadata import version

    return version("prefect")
