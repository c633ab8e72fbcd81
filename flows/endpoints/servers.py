"""The servers of a repository: finds out which run, connects to them, and asks all of them at a time."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from flows.endpoints.addresses import every_host
from flows.endpoints.agreement import check_agreement
from flows.endpoints.connections import credentials
from flows.endpoints.fleet_server import FleetServer
from flows.endpoints.live_server import LiveServer, connect
from flows.endpoints.ownership import ForeignServer
from flows.endpoints.views import ModelAtServer
from flows.settings import Settings
from serving.protocol.errors import DeadlineExceeded, HotswapError, ServerUnavailable, Unauthenticated
from serving.repository.store import Repository

log = logging.getLogger(__name__)

T = TypeVar("T")


class Endpoints:
    """All servers that must have a version, connected."""

    def __init__(self, servers: Sequence[LiveServer]) -> None:
        self.name = ", ".join(server.name for server in servers)
        self.problems: dict[str, str] = {}
        """by name, why a server cannot be asked"""
        self._servers = servers

    def __bool__(self) -> bool:
        """Whether any is left that serves our repository."""
        return bool(self._servers)

    def __iter__(self) -> Iterator[LiveServer]:
        return iter(self._servers)

    def each(self, ask: Callable[[LiveServer], T]) -> list[T]:
        """
        Ask all of them at a time and wait for every answer; the answers are in the order of the settings.

        Raises:
            HotswapError: The first of their errors, which names the server.
        """
        with ThreadPoolExecutor(max(1, len(self._servers))) as pool:
            asked = [pool.submit(ask, server) for server in self._servers]
        return [each.result() for each in asked]

    def each_reachable(self, ask: Callable[[LiveServer], T]) -> list[T | None]:
        """As `each`, with None for a server that does not answer."""

        def ask_reachable(server: LiveServer) -> T | None:
            try:
                return None if server.name in self.problems else ask(server)
            except (ServerUnavailable, DeadlineExceeded) as exc:
                log.warning("server does not answer server=%s error=%s", server.name, exc)
                return None

        return self.each(ask_reachable)

    def check(self, repository: Repository) -> None:
        """
        Note those that do not answer in `problems`.

        Raises:
            ForeignServer: One of them does not serve `repository`.
            Unauthenticated: One refuses the token.
        """
        for error in self._errors(repository):
            if error is not None and not isinstance(error, (ServerUnavailable, DeadlineExceeded)):
                raise error

    def keep_ours(self, repository: Repository) -> None:
        """Note what is wrong in `problems`, and leave out the servers that do not serve `repository`."""
        errors = self._errors(repository)
        pairs = zip(self._servers, errors, strict=True)
        self._servers = [server for server, error in pairs if not isinstance(error, (ForeignServer, Unauthenticated))]

    def view(self, model: str) -> tuple[ModelAtServer, ...]:
        """What each of them has of `model`, or why it does not answer."""

        def view(server: LiveServer) -> ModelAtServer:
            if problem := self.problems.get(server.name):
                return ModelAtServer(server.name, problem=problem)
            try:
                return server.view(model)
            except (ServerUnavailable, DeadlineExceeded, Unauthenticated) as exc:
                return ModelAtServer(server.name, problem=str(exc))

        return tuple(self.each(view))

    def _errors(self, repository: Repository) -> list[HotswapError | None]:
        def check(server: LiveServer) -> HotswapError | None:
            try:
                server.check_is_ours(repository)
            except HotswapError as exc:
                self.problems[server.name] = str(exc)
                return exc
            return None

        return self.each(check)


class Servers:
    """The servers of one repository at the endpoints of the settings, whether they run or not."""

    def __init__(self, settings: Settings, repository: Repository) -> None:
        self._settings = settings
        self._repository = repository

    @contextmanager
    def running(self) -> Iterator[Endpoints | None]:
        """
        Connect to all of them; None when no endpoints are set and nothing listens on the ports of the settings.

        Raises:
            ForeignServer: One of them does not serve the repository.
            Unauthenticated: One refuses the token.
        """
        with self.connected() as servers:
            if servers is not None:
                servers.check(self._repository)
            yield servers

    @contextmanager
    def observed(self) -> Iterator[Endpoints | None]:
        """As `running`, for reports: servers of other repositories are left out, and named in `problems`."""
        with self.connected() as servers:
            if servers is not None:
                servers.keep_ours(self._repository)
            yield servers

    @contextmanager
    def connected(self) -> Iterator[Endpoints | None]:
        """As `running`, whatever they serve."""
        settings = self._settings
        ports = (settings.rest_port, settings.grpc_port)
        if not settings.serving_endpoints and not any(_listens(settings.host, port) for port in ports):
            yield None
            return
        timeout_seconds, shown = settings.server_timeout_seconds, credentials(settings)
        kind: type[LiveServer] = FleetServer if settings.fleet else LiveServer
        endpoints = every_host(settings.endpoints) if settings.fleet else settings.endpoints
        with ExitStack() as stack:
            yield Endpoints([stack.enter_context(connect(each, timeout_seconds, shown, kind)) for each in endpoints])

    def each_running(self, ask: Callable[[LiveServer], None]) -> str | None:
        """Ask every running server, after checking that it is ours; their names, or None if none runs."""

        def ask_ours(server: LiveServer) -> None:
            server.check_is_ours(self._repository)
            ask(server)

        with self.connected() as servers:
            if servers is None:
                return None
            servers.each(ask_ours)
            return servers.name

    def ask_first(self, model: str | None = None) -> None:
        """
        Ask every server before anything begins; with a `model` also whether they have the same versions available.

        Raises:
            ForeignServer: One of the servers does not serve the repository.
            ServersDisagree: They do not have the same published versions available.
            ServingError: One does not answer.
        """
        with self.connected() as servers:
            if servers is None:
                return
            servers.each(lambda server: server.check_is_ours(self._repository))
            if model is not None:
                check_agreement(servers.view(model), model, self._repository.versions(model))


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True
