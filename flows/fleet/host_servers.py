"""The model servers of a host, as its publish agent tells them what to load."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import replace

from flows.endpoints.live_server import LiveServer
from serving.protocol.errors import HotswapError
from serving.repository.model_config import ModelEntry
from serving.repository.replica import Replica

log = logging.getLogger(__name__)


class HostServer:
    """One model server that reads the directory of this host."""

    def __init__(self, server: LiveServer, replica: Replica) -> None:
        self._server = server
        self._replica = replica
        self._is_current = False
        self._labelled: dict[str, dict[str, int]] = {}
        self._problem = ""

    def forget(self) -> None:
        """The files or the labels have changed since it was told."""
        self._is_current = False

    def tell(self, unsettled: Collection[str]) -> set[str]:
        """
        Let it take over ``models.config``, with the labels whose versions are available.

        Args:
            unsettled: The models whose labels wait for their versions; all others have been there before.

        Returns:
            The models whose labels it does not have yet: all of them where it cannot be told.
        """
        if self._is_current and not unsettled:
            return set()
        try:
            pending = self._tell(unsettled)
        except HotswapError as exc:
            self._is_current = False
            if str(exc) != self._problem:
                log.warning("server not told error=%s", exc)
                self._problem = str(exc)
            return set(unsettled)
        self._problem = ""
        return pending

    def has_any(self, model: str, versions: Collection[int]) -> bool:
        """Whether one of these is available; False where it does not answer."""
        try:
            states = self._server.states(model)
        except HotswapError:
            return False
        return any(states.get(version) == "AVAILABLE" for version in versions)

    def _tell(self, unsettled: Collection[str]) -> set[str]:
        wanted = self._server.entries(self._replica)
        sent = [replace(each, labels=self._assignable(each)) if each.name in unsettled else each for each in wanted]
        labelled = {entry.name: dict(entry.labels) for entry in sent}
        if not self._is_current or labelled != self._labelled:
            self._server.send(self._replica, sent)
            self._is_current, self._labelled = True, labelled
        return {entry.name for entry in wanted if entry.labels != labelled[entry.name]}

    def _assignable(self, entry: ModelEntry) -> dict[str, int]:
        states = self._server.states(entry.name) if entry.labels else {}
        return {label: version for label, version in entry.labels.items() if states.get(version) == "AVAILABLE"}
