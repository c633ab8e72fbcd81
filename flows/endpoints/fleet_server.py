"""
A model server on a host of its own, whose publish agent follows the registry.

Commands never reload it, as only its agent knows its directory: they wait until it has what the registry says. What the
agent cannot get is told by the embedded server; TensorFlow Serving itself only never has it.
"""

from __future__ import annotations

from collections.abc import Mapping

from clients.client import Served
from flows.endpoints import views
from flows.endpoints.golden_rows import WrongAnswer
from flows.endpoints.live_server import LiveServer
from serving.protocol.errors import DeadlineExceeded, InvalidRequest, ServableNotFound, ServerUnavailable
from serving.repository.stamp import Stamp
from serving.repository.store import Repository


class FleetServer(LiveServer):
    """A model server that takes versions and labels from its own publish agent."""

    is_fleet = True

    def reload(self, repository: Repository) -> None:
        """Leave it to the agent, unless the server shares the repository's own directory."""
        if self._has_agent(self._rest.served()):
            self.check_is_ours(repository)
        else:
            super().reload(repository)

    def wait_labelled(self, model: str, labels: Mapping[str, int]) -> None:
        """Wait until it reports these labels, as far as they are at available versions; else it reports none."""

        def labelled() -> str | None:
            served = self._rest.served()
            if (found := views.labels_of(served, model)) is None:
                return ""
            states = self.states(model)
            wanted = {label: at for label, at in labels.items() if states.get(at) == "AVAILABLE"}
            is_labelled = wanted.items() <= found.items() and found.keys() <= labels.keys()
            return "" if is_labelled or not self._has_agent(served) else None

        self._poll(labelled)

    def check_label(self, model: str, label: str, version: int, stamp: Stamp) -> None:
        """As for any server, once its agent has had the time to move the label."""
        last = ""

        def answers() -> str | None:
            nonlocal last
            try:
                LiveServer.check_label(self, model, label, version, stamp)
            except (WrongAnswer, InvalidRequest, ServableNotFound) as exc:
                last = str(exc)
                return None
            return ""

        try:
            self._poll(answers)
        except DeadlineExceeded as exc:
            raise DeadlineExceeded(f"{exc}; {last}") from exc

    def wait_available(self, model: str, version: int) -> None:
        try:
            super().wait_available(model, version)
        except DeadlineExceeded as exc:
            raise DeadlineExceeded(f"{exc}: it has no version {version} of {model!r}, see its publish agent") from exc

    def _failure_of(self, model: str, version: int) -> str | None:
        if (failure := super()._failure_of(model, version)) is not None:
            return failure
        try:
            served = self._rest.served()
        except (ServerUnavailable, DeadlineExceeded):
            return None
        not_fetched = {} if served is None else served.not_fetched
        return not_fetched.get(model, {}).get(str(version))

    def _has_agent(self, served: Served | None) -> bool:
        return served is None or served.is_replica or served.repository_id is None
