"""One model server, asked over both protocols: reloads it, waits for versions, and checks its answers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from clients.client import Credentials
from clients.grpc_client import GrpcClient
from clients.rest_client import RestClient
from flows.endpoints import ownership, views
from flows.endpoints.golden_rows import WrongAnswer, replay_golden
from flows.endpoints.model_entries import entries_for
from flows.endpoints.views import ModelAtServer
from flows.settings import Endpoint
from serving.protocol.errors import (
    DeadlineExceeded,
    LabelNotAssignable,
    ServableNotFound,
    ServerUnavailable,
)
from serving.protocol.redaction import redacted
from serving.protocol.unknown_operations import explained
from serving.repository.model_config import ModelEntry
from serving.repository.stamp import GoldenRows, Stamp
from serving.repository.store import Repository

log = logging.getLogger(__name__)

_POLL_SECONDS, _MAX_POLL_SECONDS = 0.02, 0.25


class NotServed(ServerUnavailable):
    """The server does not serve this version."""


class LiveServer:
    """A model server, asked over both protocols."""

    is_fleet = False
    """whether a publish agent may keep its directory"""

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
        ownership.check_is_ours(repository, self._endpoint, self._rest, self._grpc, self.is_fleet)

    def reload(self, repository: Repository) -> None:
        """
        Make the server take over ``models.config``.

        Versions come first, and their labels once they are available: a reload that asks for both at once is refused.
        What was loaded from another directory is unloaded before, as a server never loads a number twice.
        """
        self.check_is_ours(repository)
        served = self._rest.served()
        entries = entries_for(served, repository)
        if elsewhere := views.elsewhere(served):
            log.warning("unloading what is not of this repository server=%s models=%s", self.name, sorted(elsewhere))
            self._take_over([entry for entry in entries if entry.name not in elsewhere])
            for model, versions in elsewhere.items():
                self.wait_gone(model, list(versions))
        waiting = self._take_over(entries)
        if waiting:
            for entry in waiting:
                self.wait_settled(entry.name, set(entry.labels.values()) & set(repository.versions(entry.name)))
            self._take_over(entries)

    def entries(self, repository: Repository) -> list[ModelEntry]:
        """What ``models.config`` asks it to load, with base paths as it has them."""
        return entries_for(self._rest.served(), repository)

    def send(self, repository: Repository, entries: Sequence[ModelEntry]) -> None:
        """Make these all that it loads, without waiting for any."""
        self.check_is_ours(repository)
        self._grpc.reload(entries)

    def wait_labelled(self, model: str, labels: Mapping[str, int]) -> None:
        """Wait until it has these labels, which a reload has done before it returns."""

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

    def view(self, model: str) -> ModelAtServer:
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
            views.labels_of(served, model),
            views.elsewhere(served).get(model, {}),
            views.foreign_base_path(served, model),
        )

    def default_label(self) -> str | None:
        """The label that requests with neither version nor label follow; None where they get the highest version."""
        served = self._rest.served()
        return None if served is None else served.default_version_label

    def digest(self, model: str, version: int) -> str | None:
        """What the server says it serves; None from TensorFlow Serving itself, which does not know."""
        served = self._rest.served()
        for row in [] if served is None else served.rows:
            if (row["model"], row["version"]) == (model, version):
                digest: str | None = row["digest"]
                return digest
        return None

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

    def check_answers(self, model: str, version: int, stamp: Stamp) -> None:
        """
        Compare the golden answers over both protocols, and the served digest, with what publish kept.

        Raises:
            WrongAnswer: They differ.
        """
        served = self.digest(model, version)
        if None not in (served, stamp.digest) and served != stamp.digest:
            raise WrongAnswer(f"The server at {self.name} serves other files as version {version} of {model!r}")
        if stamp.golden is not None:
            replay_golden(stamp.golden, "REST", self._rest, model, version)
            replay_golden(stamp.golden, "gRPC", self._grpc, model, version)

    def time_golden(self, model: str, version: int, golden: GoldenRows) -> float:
        """
        Ask for the golden rows over both protocols; the milliseconds that gRPC took.

        Raises:
            WrongAnswer: The answers differ from what publish kept.
        """
        started = time.perf_counter()
        replay_golden(golden, "gRPC", self._grpc, model, version)
        milliseconds = (time.perf_counter() - started) * 1000
        replay_golden(golden, "REST", self._rest, model, version)
        return milliseconds

    def usage(self, model: str) -> dict[int, tuple[int, int]]:
        """By version, how many requests and how many of them failed; empty from TensorFlow Serving itself."""
        served = self._rest.served()
        rows = [] if served is None else served.rows
        return {row["version"]: (row["requests"], row["errors"]) for row in rows if row["model"] == model}

    def check_label(self, model: str, label: str, version: int, stamp: Stamp) -> None:
        """Ask by label over both protocols: `version` must answer."""
        if stamp.golden is None:
            return
        self._rest.predict(model, stamp.golden.inputs, label=label)
        answered = self._grpc.predict(model, stamp.golden.inputs, label=label).version
        if answered != version:
            raise WrongAnswer(f"Label {label!r} of {model!r} is answered by version {answered}, not by {version}")

    def _take_over(self, entries: Sequence[ModelEntry]) -> list[ModelEntry]:
        """Send these with the labels that can be assigned now; those with others."""
        assignable = [replace(entry, labels=self._assignable(entry)) for entry in entries]
        self._grpc.reload(assignable)
        return [entry for entry, sent in zip(entries, assignable, strict=True) if entry.labels != sent.labels]

    def _assignable(self, entry: ModelEntry) -> dict[str, int]:
        states = self.states(entry.name) if entry.labels else {}
        return {label: version for label, version in entry.labels.items() if states.get(version) == "AVAILABLE"}

    def _failure_of(self, model: str, version: int) -> str | None:
        """None while it is not known; empty when the version is available; else why it failed."""
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
        deadline, pause = time.monotonic() + self._timeout_seconds, _POLL_SECONDS
        while (answer := ask()) is None:
            if time.monotonic() > deadline:
                raise DeadlineExceeded(
                    f"The server at {self.name} was not ready within {self._timeout_seconds:g} s "
                    "(HOTSWAP_SERVER_TIMEOUT_SECONDS)"
                )
            time.sleep(pause)
            pause = min(pause * 1.1, _MAX_POLL_SECONDS)
        return answer


@contextmanager
def connect(
    endpoint: Endpoint, timeout_seconds: float, credentials: Credentials, kind: type[LiveServer] = LiveServer
) -> Iterator[LiveServer]:
    """The server at `endpoint`, whatever it serves."""
    with (
        RestClient(endpoint.rest_url, timeout_seconds, credentials) as rest,
        GrpcClient(endpoint.grpc_target, timeout_seconds, credentials) as grpc,
    ):
        yield kind(rest, grpc, endpoint, timeout_seconds)
