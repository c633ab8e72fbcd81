"""
The publish agent of a host: keeps its models directory equal to what the registry says is live.

A turn reads what has changed, fetches what is missing, makes visible what has come, lets the servers take it over, and
takes out what is no longer published once a server has something to answer with. Every step can be repeated, so an
agent that was killed at any instruction goes on with the next turn.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from flows.fleet.downloads import Downloads
from flows.fleet.host_servers import HostServer
from flows.registry.fleet_registry import FleetRegistry
from flows.registry.mlflow_errors import RegistryError
from flows.registry.statement import Statement
from serving.protocol.errors import HotswapError
from serving.repository.model_config import ModelEntry, parse, render
from serving.repository.replica import Replica
from serving.repository.version_policy import All

log = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS, _STOP_SECONDS = 0.1, 0.2


@dataclass(frozen=True, slots=True)
class Turn:
    """What a turn has come to."""

    is_read: bool
    """whether the registry could be read"""
    unsettled: frozenset[str]
    """the models that are not yet as the registry says"""
    problems: Mapping[str, Mapping[int, str]]
    """by model and version, why it cannot be had"""


class Agent:
    """Follows the registry with one directory and the servers that read it."""

    def __init__(
        self,
        replica: Replica,
        servers: Sequence[HostServer],
        poll_seconds: float,
        tell: Callable[[Turn], None],
        repository: str | None = None,
        trusted_keys_file: Path | None = None,
    ) -> None:
        """
        Args:
            replica: The directory.
            servers: Who reads it.
            poll_seconds: Between two turns with nothing to do.
            tell: Gets what each turn has come to.
            repository: Identity of the repository to follow, where MLflow has several.
            trusted_keys_file: The public keys of which one must have signed what is fetched, if any.
        """
        self.tell = tell
        self._repository = repository
        self._replica = replica
        self._servers = servers
        self._poll_seconds = poll_seconds
        self._registry = FleetRegistry()
        self._wake = threading.Event()
        self._downloads = Downloads(replica, self._registry, self._wake.set, trusted_keys_file)
        self._statements: dict[str, Statement] = {}
        self._unsettled: set[str] = set()
        self._entries = {entry.name: entry for entry in parse(replica.read_config())}
        self._written = ""
        self._problem = ""
        self._told: Mapping[str, Mapping[int, str]] | None = None

    def run(self, stop_requested: threading.Event) -> None:
        """Take turns until a stop is requested; the sooner after one another, the more there is to do."""
        pause = _FIRST_PAUSE_SECONDS
        while not stop_requested.is_set():
            turn = self.turn()
            self.tell(turn)
            pause = min(pause * 1.3, self._poll_seconds) if turn.unsettled else self._poll_seconds
            deadline = time.monotonic() + pause * random.uniform(0.8, 1.2)
            while not stop_requested.is_set() and not self._wake.is_set() and time.monotonic() < deadline:
                self._wake.wait(_STOP_SECONDS)
            if self._wake.is_set():
                self._wake.clear()
                pause = _FIRST_PAUSE_SECONDS
        self._downloads.stop()

    def run_once(self) -> Turn:
        """Take turns until nothing more can be done now; what then is unsettled cannot be had."""
        while True:
            turn = self.turn()
            self.tell(turn)
            if not turn.is_read or not turn.unsettled or self._downloads.is_stuck:
                return turn
            self._wake.wait(_FIRST_PAUSE_SECONDS)
            self._wake.clear()

    @property
    def missing(self) -> list[tuple[str, int]]:
        """The versions with a label that are not here, with their models."""
        return [
            (model, version)
            for model, statement in sorted(self._statements.items())
            for version in sorted(set(statement.labels.values()).difference(self._replica.versions(model)))
        ]

    def turn(self) -> Turn:
        """Look at the registry, and do what can be done now."""
        is_read = self._look()
        try:
            self._fetch()
            self._write_config()
            pending = set().union(*(server.tell(self._unsettled) for server in self._servers))
            for model in self._unsettled - pending:
                self._drop_unpublished(model)
            self._settle(pending)
        except HotswapError as exc:
            self._note(str(exc))
        if (problems := self._downloads.problems()) != self._told:
            self._replica.write_problems(problems)
            self._told = problems
        return Turn(is_read, frozenset(self._unsettled), problems)

    def _look(self) -> bool:
        """Read what has changed; what cannot be read changes nothing."""
        try:
            changed = self._registry.changed_statements()
        except RegistryError as exc:
            self._note(str(exc))
            return False
        stated = self._decoded(changed)
        try:
            followed = self._follow({statement.repository for statement in stated.values()})
        except HotswapError as exc:
            self._note(str(exc))
            return False
        for model, statement in stated.items():
            if statement.repository == followed:
                self._statements[model] = statement
                self._unsettled.add(model)
        return True

    def _decoded(self, texts: Mapping[str, str]) -> dict[str, Statement]:
        stated: dict[str, Statement] = {}
        for model, text in texts.items():
            try:
                stated[model] = Statement.decode(text, model)
            except HotswapError as exc:
                self._note(str(exc))
        return stated

    def _follow(self, repositories: Set[str]) -> str | None:
        """The repository that this host follows: the one that it was told to, or the only one that there is."""
        followed = self._repository or self._replica.identity()
        if followed is None and len(repositories) > 1:
            raise RegistryError(
                f"MLflow tells of several repositories ({', '.join(sorted(repositories))}): "
                "name the one to follow with --repository"
            )
        if followed is None and not repositories:
            return None
        followed = followed or next(iter(repositories))
        self._replica.follow(followed)
        return followed

    def _fetch(self) -> None:
        """Begin what is missing, and make visible what has come."""
        for model in self._unsettled:
            wanted = self._statements[model].versions
            for version in set(wanted).intersection(self._replica.retired(model)):
                self._replica.restore(model, version)
            on_disk = self._replica.versions(model)
            self._downloads.want(model, {each: wanted[each] for each in wanted if each not in on_disk})
        for (model, version), staged in self._downloads.take_fetched().items():
            self._replica.publish(model, version, staged)

    def _write_config(self) -> None:
        for model in self._unsettled:
            self._configure(model)
        text = render([self._entries[model] for model in sorted(self._entries)]) or "model_config_list {}\n"
        if text == self._written:
            return
        self._replica.write_config(text)
        self._written = text
        for server in self._servers:
            server.forget()

    def _configure(self, model: str) -> None:
        """List what is here of a model; a label whose version has not come stays where it was."""
        on_disk, statement = self._replica.versions(model), self._statements[model]
        if not on_disk or not statement.versions:
            self._entries.pop(model, None)
            return
        before = self._entries[model].labels if model in self._entries else {}
        labels = {label: at if at in on_disk else before.get(label) for label, at in statement.labels.items()}
        usable = {label: at for label, at in labels.items() if at in on_disk}
        self._entries[model] = ModelEntry(model, str(self._replica.base_path(model)), All(), usable)

    def _drop_unpublished(self, model: str) -> None:
        """Take out what is not published any more, and delete it when no server has it."""
        wanted = self._statements[model].versions
        others = [version for version in self._replica.versions(model) if version not in wanted]
        for version in others if others and self._may_drop(model, others) else ():
            self._replica.retire(model, version)
            log.info("version dropped model=%s version=%d", model, version)
        dropped = self._replica.retired(model)
        if dropped and not any(server.has_any(model, dropped) for server in self._servers):
            self._replica.delete_dropped(model)

    def _may_drop(self, model: str, others: Sequence[int]) -> bool:
        """Whether every server has something else to answer with, or the model was removed from all."""
        wanted = self._statements[model].versions
        if not wanted:
            return not any(server.has_any(model, others) for server in self._servers)
        if not set(others).isdisjoint(self._entries[model].labels.values()):
            return False
        here = set(wanted).intersection(self._replica.versions(model))
        return bool(here) and all(server.has_any(model, here) for server in self._servers)

    def _settle(self, pending: Collection[str]) -> None:
        """Leave out the models that are as the registry says."""
        for model in [model for model in self._unsettled.difference(pending) if self._is_settled(model)]:
            self._unsettled.discard(model)
            log.info("model settled model=%s versions=%s", model, self._replica.versions(model))
        if not self._unsettled:
            self._problem = ""

    def _is_settled(self, model: str) -> bool:
        statement, entry = self._statements[model], self._entries.get(model)
        labels = {} if entry is None else entry.labels
        on_disk, dropped = set(self._replica.versions(model)), self._replica.retired(model)
        return on_disk == set(statement.versions) and not dropped and labels == statement.labels

    def _note(self, problem: str) -> None:
        if problem != self._problem:
            log.warning("%s", problem)
            self._problem = problem
