"""What does the model server serve, and does it answer as it should?"""

from __future__ import annotations

import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clients.grpc_client import GrpcClient
from clients.rest_client import RestClient
from flows.connections import grpc_client, rest_client
from flows.settings import Settings
from serving.errors import DeadlineExceeded, HotswapError, ServableNotFound, ServerUnavailable
from serving.model_config import ModelEntry, parse, render
from serving.repository import Repository
from serving.version_policy import Specific

_POLL_SECONDS = 0.02
_TOLERANCE = 1e-5  # a batch of another size may change a float's last bits


class NotServed(ServerUnavailable):
    """The server does not serve this version."""


class WrongAnswer(HotswapError):
    """The server answers, but not what this version answers."""


class LiveServer:
    """A model server, asked over both protocols."""

    def __init__(self, rest: RestClient, grpc: GrpcClient, rest_url: str, timeout_seconds: float) -> None:
        self.name = rest_url
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
        rows = self._rest.served()
        if rows is None:
            return None
        return {label: row["version"] for row in rows if row["model"] == model for label in row["labels"]}

    def wait_available(self, model: str, version: int) -> None:
        failed = self._poll(lambda: self._failure_of(model, version))
        if failed:
            raise NotServed(f"The server at {self.name} cannot load version {version} of {model!r}: {failed}")

    def wait_gone(self, model: str, versions: list[int]) -> None:
        def gone() -> str | None:
            states = self.states(model)
            return None if any(states.get(version) == "AVAILABLE" for version in versions) else ""

        self._poll(gone)

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
        for row in self._rest.served() or []:
            if (row["model"], row["version"]) == (model, version):
                digest: str | None = row["digest"]
                return digest
        return None


def servable_entries(repository: Repository) -> list[ModelEntry]:
    """The models of ``models.config`` that have a published version: a server would wait for any other."""
    return [entry for entry in parse(repository.read_config()) if repository.versions(entry.name)]


@contextmanager
def running_server(settings: Settings) -> Iterator[LiveServer | None]:
    """The server that listens on the ports of `settings`; None when nobody does."""
    if not any(_listens(settings.host, port) for port in (settings.rest_port, settings.grpc_port)):
        yield None
        return
    timeout_seconds = settings.server_timeout_seconds
    with rest_client(settings, timeout_seconds) as rest, grpc_client(settings, timeout_seconds) as grpc:
        yield LiveServer(rest, grpc, settings.rest_url, timeout_seconds)


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
