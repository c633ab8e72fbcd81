"""The check before a command changes anything: all servers answer, are ours, and have the same versions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from flows.endpoints.servers import connected
from flows.endpoints.views import ModelAtServer
from flows.settings import Settings
from serving.protocol.errors import HotswapError
from serving.repository.store import Repository


class ServersDisagree(HotswapError):
    """Not all servers have the same versions available."""


def ask_first(settings: Settings, model: str | None = None) -> None:
    """
    Ask every server before anything begins; with a `model` also whether they have the same versions of it available.

    Raises:
        ForeignServer: One of the servers does not serve the repository of `settings`.
        ServersDisagree: They do not have the same published versions available.
        ServingError: One does not answer.
    """
    repository = Repository(settings.models_repo)
    with connected(settings) as servers:
        if servers is None:
            return
        servers.each(lambda server: server.check_is_ours(repository))
        if model is not None:
            _check_agreement(servers.view(model), model, repository.versions(model))


def _check_agreement(views: Sequence[ModelAtServer], model: str, published: Iterable[int]) -> None:
    for version in published:
        states = {view.server: view.states.get(version, "not known") for view in views}
        others = {server: state for server, state in states.items() if state != "AVAILABLE"}
        if others and len(others) < len(states):
            listed = ", ".join(f"{server} has it as {state}" for server, state in others.items())
            raise ServersDisagree(
                f"Version {version} of {model!r} is served by {len(states) - len(others)} of {len(states)}: {listed}; "
                f"see its log, then `hotswap reconcile {model}`"
            )
