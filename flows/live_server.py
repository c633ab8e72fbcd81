"""What does the model server serve, and does it answer as it should?"""

from __future__ import annotations

import logging
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from clients.grpc_client import GrpcClient
from clients.rest_client import RestClient
from flows.connections import access
from flows.settings import Settings
from serving.errors import DeadlineExceeded, HotswapError, LabelNotAssignable, ServableNotFound, ServerUnavailable
from serving.model_config import ModelEntry, parse, render
from serving.redaction import redacted
from serving.repository import Repository
from serving.version_policy import Specific

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.02
_TOLERANCE = 1e-5  # a batch of another size may change a float's last bits


T = TypeVar("T")


class NotServed(ServerUnavailable):
    """The server does not serve this version."""


class WrongAnswer(HotswapError):
    """The server answers, but not what this version answers."""


class LiveServer:
    """A model server, asked over both protocols."""

    def __init__(self, rest: RestClient, grpc: GrpcClient, rest_url: str, timeout_seconds: float) -> None:
        self.name = redacted(rest_url)
        self._rest = rest
        self._grpc = grpc
        self._timeout_seconds = timeout_seconds

    def reload(self, repository: Repository) -> None:
        """Make the server take over ``models.config``."""
        self._grpc.reload(servable_entries(repository))

    def states(self, model: str) -> dict[int, str]:
        try:
            return {each.version: each.state.name for each in self._grpc.status(model)}
        except ServableNotFound:
            return {}

    def labels(self, model: str) -> dict[str, int] | None:
        """The labels of `model`; None from TensorFlow Serving itself, which does not tell."""
        served = self._rest.served()
        if served is None:
            return None
        return {label: row["version"] for row in served.rows if row["model"] == model for label in row["labels"]}

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
        return found[0].message or None

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


class Endpoints:
    """All servers that must have a version; one sentence that goes wrong at one of them names it."""

    def __init__(self, servers: Sequence[LiveServer]) -> None:
        self.name = ", ".join(server.name for server in servers)
        self._servers = servers

    def __iter__(self) -> Iterator[LiveServer]:
        return iter(self._servers)

    def each(self, ask: Callable[[LiveServer], T]) -> list[T]:
        """
        Ask all of them at a time, and every one to the end; their answers in the order of the settings.

        Raises:
            HotswapError: The first of their errors.
        """
        with ThreadPoolExecutor(len(self._servers)) as pool:
            asked = [pool.submit(ask, server) for server in self._servers]
        return [each.result() for each in asked]

    def states(self, model: str) -> dict[int, str]:
        """
        Per version that all of them know: AVAILABLE where it is so at all of them, else what it is at one.

        A server that does not answer knows none.
        """

        found = [states or {} for states in self.told(lambda server: server.states(model))]
        common = set(found[0]).intersection(*found[1:])
        return {
            version: next((each[version] for each in found if each[version] != "AVAILABLE"), "AVAILABLE")
            for version in common
        }

    def labels(self, model: str) -> tuple[dict[str, int], ...]:
        """The labels of `model` at every server that tells."""
        told = self.told(lambda server: server.labels(model))
        return tuple(labels for labels in told if labels is not None)

    def told(self, ask: Callable[[LiveServer], T | None]) -> list[T | None]:
        """The same as `each`, with None for a server that does not answer."""

        def told(server: LiveServer) -> T | None:
            try:
                return ask(server)
            except (ServerUnavailable, DeadlineExceeded) as exc:
                log.warning("server does not answer server=%s error=%s", server.name, exc)
                return None

        return self.each(told)


@contextmanager
def running_server(settings: Settings) -> Iterator[Endpoints | None]:
    """The servers at the endpoints of `settings`; None when none are set and nobody listens on its ports."""
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
                    each.rest_url,
                    timeout_seconds,
                )
                for each in settings.endpoints
            ]
        )


def ask_running(settings: Settings, ask: Callable[[LiveServer], None]) -> str | None:
    """Ask every running server; their names, or None where there is none."""
    with running_server(settings) as servers:
        if servers is None:
            return None
        servers.each(ask)
        return servers.name


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
            url = f"http://127.0.0.1:{own.rest_port}"
            with (
                RestClient(url, timeout_seconds) as rest,
                GrpcClient(f"127.0.0.1:{own.grpc_port}", timeout_seconds) as grpc,
            ):
                yield LiveServer(rest, grpc, url, timeout_seconds)


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


def _compare(answer: NDArray[np.float32], expected: NDArray[np.float32], who: str) -> None:
    if answer.shape != expected.shape or not np.allclose(answer, expected, rtol=0, atol=_TOLERANCE):
        raise WrongAnswer(f"{who} answers the golden rows differently from the model that was judged")
