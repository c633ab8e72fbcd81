"""What does the model server serve, and does it answer as it should?"""

from __future__ import annotations

import logging
import socket
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from clients.client import Served
from clients.grpc_client import GrpcClient
from clients.rest_client import RestClient
from flows.endpoints import ownership
from flows.endpoints.connections import access
from flows.endpoints.ownership import ForeignServer
from flows.settings import Endpoint, Settings
from serving.protocol.errors import (
    DeadlineExceeded,
    HotswapError,
    LabelNotAssignable,
    ServableNotFound,
    ServerUnavailable,
    Unauthenticated,
)
from serving.protocol.redaction import redacted
from serving.protocol.unknown_operations import explained
from serving.repository.model_config import ModelEntry, parse, render
from serving.repository.store import Repository
from serving.repository.version_policy import Specific

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.02
NOT_SERVED = "NOT SERVED"
_TOLERANCE = 1e-5  # a batch of another size may change a float's last bits


T = TypeVar("T")


class NotServed(ServerUnavailable):
    """The server does not serve this version."""


class ServersDisagree(HotswapError):
    """Not all servers have the same versions available."""


class WrongAnswer(HotswapError):
    """The server answers, but not what this version answers."""


@dataclass(frozen=True, slots=True)
class ModelAtServer:
    """One model, as one server has it."""

    server: str
    states: Mapping[int, str] = field(default_factory=dict)
    errors: Mapping[int, str] = field(default_factory=dict)
    """why a version could not be loaded"""
    labels: Mapping[str, int] | None = None
    """None from TensorFlow Serving itself, which does not tell"""
    elsewhere: Mapping[int, str] = field(default_factory=dict)
    """the directories of versions that are not of the server's repository"""
    base_path: str = ""
    """where it looks for versions, when that is not in its repository either"""
    problem: str = ""
    """why it does not answer"""


def state_reported(views: Sequence[ModelAtServer], version: int) -> str:
    """One word for what the servers have, or by how many of them it is served."""
    states = [view.states.get(version, NOT_SERVED) for view in views]
    served = states.count("AVAILABLE")
    if 0 < served < len(states):
        return f"served by {served} of {len(states)}"
    return next((state for state in states if state != "AVAILABLE"), "AVAILABLE" if states else NOT_SERVED)


class LiveServer:
    """A model server, asked over both protocols."""

    def __init__(self, rest: RestClient, grpc: GrpcClient, endpoint: Endpoint, timeout_seconds: float) -> None:
        self.name = redacted(endpoint.rest_url)
        self._endpoint = endpoint
        self._rest = rest
        self._grpc = grpc
        self._timeout_seconds = timeout_seconds

    def check_is_ours(self, repository: Repository) -> None:
        """
        Raises:
            ForeignServer: It does not serve `repository`.
            ServingError: It does not answer, or not to us.
        """
        ownership.check_is_ours(repository, self._endpoint, self._rest, self._grpc)

    def reload(self, repository: Repository) -> None:
        """
        Make the server take over ``models.config``.

        Versions come first, and their labels once they are available: a reload that asks for both at once is refused.
        What was loaded from another directory is unloaded before, as a server never loads a number twice.
        """
        self.check_is_ours(repository)
        served = self._rest.served()
        entries = _seen_by(served, repository)
        if elsewhere := _elsewhere(served):
            log.warning("unloading what is not of this repository server=%s models=%s", self.name, sorted(elsewhere))
            self._take_over([entry for entry in entries if entry.name not in elsewhere])
            for model, versions in elsewhere.items():
                self.wait_gone(model, list(versions))
        waiting = self._take_over(entries)
        if waiting:
            for entry in waiting:
                self.wait_settled(entry.name, set(entry.labels.values()) & set(repository.versions(entry.name)))
            self._take_over(entries)

    def _take_over(self, entries: Sequence[ModelEntry]) -> list[ModelEntry]:
        """Send these with the labels that can be assigned now; those with others."""
        assignable = [replace(entry, labels=self._assignable(entry)) for entry in entries]
        self._grpc.reload(assignable)
        return [entry for entry, sent in zip(entries, assignable, strict=True) if entry.labels != sent.labels]

    def _assignable(self, entry: ModelEntry) -> dict[str, int]:
        states = self.states(entry.name) if entry.labels else {}
        return {label: version for label, version in entry.labels.items() if states.get(version) == "AVAILABLE"}

    def wait_settled(self, model: str, versions: Iterable[int]) -> None:
        """Wait until each of these is available or has failed; what takes too long is only reported."""
        waited = set(versions)

        def failures() -> str | None:
            found = {version: self._failure_of(model, version) for version in waited}
            if None in found.values():
                return None
            return ", ".join(f"version {version}: {failure}" for version, failure in found.items() if failure)

        try:
            problem = self._poll(failures)
        except DeadlineExceeded as exc:
            problem = str(exc)
        if problem:
            log.warning("not available model=%s server=%s error=%s", model, self.name, problem)

    def states(self, model: str) -> dict[int, str]:
        try:
            return {each.version: each.state.name for each in self._grpc.status(model)}
        except ServableNotFound:
            return {}

    def look(self, model: str) -> ModelAtServer:
        """What it has of `model`."""
        try:
            statuses = self._grpc.status(model)
        except ServableNotFound:
            statuses = []
        served = self._rest.served()
        return ModelAtServer(
            self.name,
            {each.version: each.state.name for each in statuses},
            {each.version: explained(each.message) for each in statuses if each.message},
            None if served is None else _labels_of(served, model),
            _elsewhere(served).get(model, {}),
            _foreign_base_path(served, model),
        )

    def default_label(self) -> str | None:
        """The label that requests with neither version nor label follow; None where they get the highest version."""
        served = self._rest.served()
        return None if served is None else served.default_version_label

    def wait_available(self, model: str, version: int) -> None:
        failed = self._poll(lambda: self._failure_of(model, version))
        if failed:
            raise NotServed(f"The server at {self.name} cannot load version {version} of {model!r}: {failed}")

    def wait_gone(self, model: str, versions: list[int]) -> None:
        def gone() -> str | None:
            states = self.states(model)
            return None if any(states.get(version) == "AVAILABLE" for version in versions) else ""

        self._poll(gone)

    def check_available(self, model: str, label: str, version: int) -> None:
        """
        Raises:
            LabelNotAssignable: `version` is not available, so that `label` cannot point to it.
        """
        if (state := self.states(model).get(version, "not served")) != "AVAILABLE":
            raise LabelNotAssignable(
                f"Label {label!r} cannot move to version {version} of {model!r}: it is {state} at {self.name}"
            )

    def check_back(self, repository: Repository, model: str, version: int) -> None:
        self.wait_available(model, version)
        self.check_answers(model, version, repository.stamp(model, version))

    def check_answers(self, model: str, version: int, stamp: Mapping[str, Any]) -> None:
        """Hold answers by number over both protocols, and the served digest, against what publish kept."""
        served = self.digest(model, version)
        if served is not None and served != stamp.get("digest", served):
            raise WrongAnswer(f"The server at {self.name} serves other files as version {version} of {model!r}")
        if "golden" in stamp:
            inputs = np.asarray(stamp["golden"]["inputs"], np.float32)
            expected = np.asarray(stamp["golden"]["outputs"], np.float32)
            for protocol, client in (("REST", self._rest), ("gRPC", self._grpc)):
                answer = client.predict(model, inputs, version=version).outputs["output"]
                _compare(np.asarray(answer, np.float32), expected, f"{protocol} version {version} of {model!r}")

    def time_golden(self, model: str, version: int, stamp: Mapping[str, Any]) -> float:
        """
        Ask the golden rows over both protocols; the milliseconds that gRPC took.

        Raises:
            WrongAnswer: They are answered differently from what publish kept.
        """
        inputs = np.asarray(stamp["golden"]["inputs"], np.float32)
        expected = np.asarray(stamp["golden"]["outputs"], np.float32)
        started = time.perf_counter()
        over_grpc = self._grpc.predict(model, inputs, version=version)
        milliseconds = (time.perf_counter() - started) * 1000
        over_rest = self._rest.predict(model, inputs, version=version)
        for protocol, answer in (("gRPC", over_grpc), ("REST", over_rest)):
            output = np.asarray(answer.outputs["output"], np.float32)
            _compare(output, expected, f"{protocol} version {version} of {model!r}")
        return milliseconds

    def usage(self, model: str) -> dict[int, tuple[int, int]]:
        """By version, how many requests and how many of them failed; empty from TensorFlow Serving itself."""
        served = self._rest.served()
        rows = [] if served is None else served.rows
        return {row["version"]: (row["requests"], row["errors"]) for row in rows if row["model"] == model}

    def check_label(self, model: str, label: str, version: int, stamp: Mapping[str, Any]) -> None:
        """Ask by label over both protocols: `version` must answer."""
        if "golden" not in stamp:
            return
        inputs = np.asarray(stamp["golden"]["inputs"], np.float32)
        self._rest.predict(model, inputs, label=label)
        answered = self._grpc.predict(model, inputs, label=label).version
        if answered != version:
            raise WrongAnswer(f"Label {label!r} of {model!r} is answered by version {answered}, not by {version}")

    def _failure_of(self, model: str, version: int) -> str | None:
        """None: not known yet; empty: available; else why it failed."""
        try:
            found = [each for each in self._grpc.status(model) if each.version == version]
        except (ServableNotFound, ServerUnavailable):
            return None
        if not found:
            return None
        if found[0].state.name == "AVAILABLE":
            return ""
        return explained(found[0].message) or None

    def _poll(self, ask: Callable[[], str | None]) -> str:
        """Ask until there is an answer."""
        deadline = time.monotonic() + self._timeout_seconds
        while (answer := ask()) is None:
            if time.monotonic() > deadline:
                raise DeadlineExceeded(
                    f"The server at {self.name} was not ready within {self._timeout_seconds:g} s "
                    "(HOTSWAP_SERVER_TIMEOUT_SECONDS)"
                )
            time.sleep(_POLL_SECONDS)
        return answer

    def digest(self, model: str, version: int) -> str | None:
        """What the server says it serves; None from TensorFlow Serving itself, which does not know."""
        served = self._rest.served()
        for row in [] if served is None else served.rows:
            if (row["model"], row["version"]) == (model, version):
                digest: str | None = row["digest"]
                return digest
        return None


def servable_entries(repository: Repository) -> list[ModelEntry]:
    """The models of ``models.config`` that have a published version: a server would wait for any other."""
    return [entry for entry in parse(repository.read_config()) if repository.versions(entry.name)]


def _seen_by(served: Served | None, repository: Repository) -> list[ModelEntry]:
    """What the server should load, with base paths as it has them: it may see the repository at another place."""
    entries = servable_entries(repository)
    if served is None or served.repository is None or served.repository_id != repository.identity():
        return entries
    root = Path(served.repository)
    return [replace(entry, base_path=str(root / entry.name)) for entry in entries]


def _foreign_base_path(served: Served | None, model: str) -> str:
    rows = [] if served is None else [row for row in served.rows if row["model"] == model]
    return next((row["base_path"] for row in rows if row.get("base_path_in_repository") is False), "")


def _labels_of(served: Served, model: str) -> dict[str, int]:
    return {label: row["version"] for row in served.rows if row["model"] == model for label in row["labels"]}


def _elsewhere(served: Served | None) -> dict[str, dict[int, str]]:
    """By model, the loaded versions that came from other directories than this server's repository, and those."""
    found: dict[str, dict[int, str]] = {}
    for row in [] if served is None else served.rows:
        if row.get("in_repository") is False:
            found.setdefault(row["model"], {})[row["version"]] = row["path"]
    return found


class Endpoints:
    """All servers that must have a version; one sentence that goes wrong at one of them names it."""

    def __init__(self, servers: Sequence[LiveServer]) -> None:
        self.name = ", ".join(server.name for server in servers)
        self.problems: dict[str, str] = {}
        """why some cannot be asked, by their names"""
        self._servers = servers

    def __bool__(self) -> bool:
        """Whether any is left that is ours."""
        return bool(self._servers)

    def __iter__(self) -> Iterator[LiveServer]:
        return iter(self._servers)

    def each(self, ask: Callable[[LiveServer], T]) -> list[T]:
        """
        Ask all of them at a time, and every one to the end; their answers in the order of the settings.

        Raises:
            HotswapError: The first of their errors.
        """
        with ThreadPoolExecutor(max(1, len(self._servers))) as pool:
            asked = [pool.submit(ask, server) for server in self._servers]
        return [each.result() for each in asked]

    def check(self, repository: Repository) -> None:
        """
        Note those that do not answer in `problems`.

        Raises:
            ForeignServer: One of them does not serve `repository`.
            Unauthenticated: One wants another token.
        """
        for error in self._errors(repository):
            if error is not None and not isinstance(error, (ServerUnavailable, DeadlineExceeded)):
                raise error

    def keep_ours(self, repository: Repository) -> None:
        """The same, and leave those alone that do not serve `repository`."""
        errors = self._errors(repository)
        pairs = zip(self._servers, errors, strict=True)
        self._servers = [server for server, error in pairs if not isinstance(error, (ForeignServer, Unauthenticated))]

    def look(self, model: str) -> tuple[ModelAtServer, ...]:
        """What every one of them has of `model`; one that does not answer says why."""

        def look(server: LiveServer) -> ModelAtServer:
            if problem := self.problems.get(server.name):
                return ModelAtServer(server.name, problem=problem)
            try:
                return server.look(model)
            except (ServerUnavailable, DeadlineExceeded, Unauthenticated) as exc:
                return ModelAtServer(server.name, problem=str(exc))

        return tuple(self.each(look))

    def told(self, ask: Callable[[LiveServer], T]) -> list[T | None]:
        """The same as `each`, with None for a server that does not answer."""

        def told(server: LiveServer) -> T | None:
            try:
                return None if server.name in self.problems else ask(server)
            except (ServerUnavailable, DeadlineExceeded) as exc:
                log.warning("server does not answer server=%s error=%s", server.name, exc)
                return None

        return self.each(told)

    def _errors(self, repository: Repository) -> list[HotswapError | None]:
        def check(server: LiveServer) -> HotswapError | None:
            try:
                server.check_is_ours(repository)
            except HotswapError as exc:
                self.problems[server.name] = str(exc)
                return exc
            return None

        return self.each(check)


@contextmanager
def running_server(settings: Settings) -> Iterator[Endpoints | None]:
    """
    The servers at the endpoints of `settings`; None when none are set and nobody listens on its ports.

    Raises:
        ForeignServer: One of them does not serve the repository of `settings`.
        Unauthenticated: One wants another token.
    """
    with connected(settings) as servers:
        if servers is not None:
            servers.check(Repository(settings.models_repo))
        yield servers


@contextmanager
def observed_servers(settings: Settings) -> Iterator[Endpoints | None]:
    """The same for who only reports: those of other repositories are left alone, and named in `Endpoints.problems`."""
    with connected(settings) as servers:
        if servers is not None:
            servers.keep_ours(Repository(settings.models_repo))
        yield servers


@contextmanager
def connected(settings: Settings) -> Iterator[Endpoints | None]:
    """The same, whatever they serve."""
    if not settings.serving_endpoints and not any(
        _listens(settings.host, port) for port in (settings.rest_port, settings.grpc_port)
    ):
        yield None
        return
    timeout_seconds, shown = settings.server_timeout_seconds, access(settings)
    with ExitStack() as stack:
        yield Endpoints(
            [
                LiveServer(
                    stack.enter_context(RestClient(each.rest_url, timeout_seconds, shown)),
                    stack.enter_context(GrpcClient(each.grpc_target, timeout_seconds, shown)),
                    each,
                    timeout_seconds,
                )
                for each in settings.endpoints
            ]
        )


def on_running_servers(settings: Settings, ask: Callable[[LiveServer], None]) -> str | None:
    """Ask every running server, those that are another repository's aside; their names, or None where there is none."""
    repository = Repository(settings.models_repo)

    def asked(server: LiveServer) -> None:
        server.check_is_ours(repository)
        ask(server)

    with connected(settings) as servers:
        if servers is None:
            return None
        servers.each(asked)
        return servers.name


def ask_first(settings: Settings, model: str | None = None) -> None:
    """
    Ask every server before anything begins; with a `model` also whether they are of one mind about it.

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
            _check_agreement(servers.look(model), model, repository.versions(model))


def _check_agreement(views: Sequence[ModelAtServer], model: str, published: Iterable[int]) -> None:
    for version in published:
        states = {view.server: view.states.get(version, "not known") for view in views}
        others = {server: state for server, state in states.items() if state != "AVAILABLE"}
        if others and len(others) < len(states):
            told = ", ".join(f"{server} has it as {state}" for server, state in others.items())
            raise ServersDisagree(
                f"Version {version} of {model!r} is served by {len(states) - len(others)} of {len(states)}: {told}; "
                f"see its log, then `hotswap reconcile {model}`"
            )


@contextmanager
def own_server(settings: Settings, repository: Repository, model: str, version: int) -> Iterator[LiveServer]:
    """A server of our own, on ports of the kernel's choice, for one published version."""
    from serving.server import Server
    from serving.settings import ServerSettings

    entry = ModelEntry(model, str(repository.base_path(model)), Specific((version,)))
    with tempfile.TemporaryDirectory(prefix="hotswap-") as directory:
        config = Path(directory) / "models.config"
        config.write_text(render([entry]), "utf-8")
        timeout_seconds = settings.server_timeout_seconds
        with Server(ServerSettings(model_config_file=config, max_num_load_retries=0)) as own:
            endpoint = Endpoint(f"http://127.0.0.1:{own.rest_port}", f"127.0.0.1:{own.grpc_port}")
            with (
                RestClient(endpoint.rest_url, timeout_seconds) as rest,
                GrpcClient(endpoint.grpc_target, timeout_seconds) as grpc,
            ):
                yield LiveServer(rest, grpc, endpoint, timeout_seconds)


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


def _compare(answer: NDArray[np.float32], expected: NDArray[np.float32], who: str) -> None:
    if answer.shape != expected.shape or not np.allclose(answer, expected, rtol=0, atol=_TOLERANCE):
        raise WrongAnswer(f"{who} answers the golden rows differently from the model that was judged")
