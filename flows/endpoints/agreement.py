"""Whether all servers have the same versions of a model available."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from flows.endpoints.views import ModelAtServer
from serving.protocol.errors import HotswapError


class ServersDisagree(HotswapError):
    """Not all servers have the same versions available."""


def check_agreement(views: Sequence[ModelAtServer], model: str, published: Iterable[int]) -> None:
    """
    Raises:
        ServersDisagree: A published version is available at some of them only.
    """
    for version in published:
        states = {view.server: view.states.get(version, "not known") for view in views}
        others = {server: state for server, state in states.items() if state != "AVAILABLE"}
        if others and len(others) < len(states):
            listed = ", ".join(f"{server} has it as {state}" for server, state in others.items())
            raise ServersDisagree(
                f"Version {version} of {model!r} is served by {len(states) - len(others)} of {len(states)}: {listed}; "
                f"see its log, then `hotswap reconcile {model}`"
            )
