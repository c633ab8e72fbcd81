"""The process of a publish agent: one for a directory, with the servers that read it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from flows.endpoints.connections import credentials
from flows.endpoints.live_server import connect
from flows.fleet.agent import Agent, Turn
from flows.fleet.host_servers import HostServer
from flows.fleet.metrics import AgentMetrics
from flows.settings import Settings
from serving.protocol.errors import HotswapError
from serving.repository.replica import Replica


class NotFetched(HotswapError):
    """A version that clients ask for by a label is not here."""


def follow(
    settings: Settings, repository: str | None, metrics_port: int | None, stop_requested: threading.Event
) -> None:
    """
    Keep the models directory of the settings as the registry says, until a stop is requested.

    Raises:
        RepositoryError: Another agent keeps it, or it is a repository of its own.
    """
    with ExitStack() as stack:
        told: Callable[[Turn], None] = _ignore
        if metrics_port is not None:
            metrics = AgentMetrics()
            metrics.serve(settings.host, metrics_port)
            told = metrics.tell
        stack.enter_context(_agent(settings, repository, told, with_servers=True)).run(stop_requested)


def follow_once(settings: Settings, repository: str | None) -> None:
    """
    Fetch what is missing, for servers that start afterwards.

    Raises:
        NotFetched: A version with a label could not be had; the message says why. Any other is only logged.
    """
    with _agent(settings, repository, _ignore, with_servers=False) as agent:
        turn = agent.run_once()
    if not turn.is_read:
        raise NotFetched("MLflow cannot be read: check MLFLOW_TRACKING_URI, and that it runs")
    missing = [f"{model} {version}: {turn.problems.get(model, {}).get(version)}" for model, version in agent.missing]
    if missing:
        raise NotFetched(f"Labelled versions are not here: {'; '.join(missing)}")


@contextmanager
def _agent(
    settings: Settings, repository: str | None, told: Callable[[Turn], None], with_servers: bool
) -> Iterator[Agent]:
    replica = Replica(settings.models_repo)
    replica.claim()
    shown, timeout_seconds = credentials(settings), settings.server_timeout_seconds
    with ExitStack() as stack:
        stack.enter_context(replica.kept_by_agent())
        servers = [
            HostServer(stack.enter_context(connect(each, timeout_seconds, shown)), replica)
            for each in (settings.endpoints if with_servers else ())
        ]
        yield Agent(replica, servers, settings.agent_poll_seconds, told, repository, settings.trusted_keys_file)


def _ignore(_: Turn) -> None:
    """Nobody asks."""
