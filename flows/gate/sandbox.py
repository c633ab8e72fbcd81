"""
The sandbox: the candidate is tried in a production server before anyone depends on it.

A separate server process serves the candidate beside the champion and is asked real rows. It starts
early, so that it is ready when the candidate is, and is killed at the end: it has nothing to lose.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import psutil

from clients.grpc_client import GrpcClient
from clients.rest_client import RestClient
from flows.gate.checks import Check, markdown_report
from flows.gate.noninferiority import Verdict
from flows.gate.sandbox_answers import Trial, Unfit, check_answers, check_rows_apart
from flows.machine.processes import Process
from flows.machine.workspaces import without
from flows.settings import Endpoint, Settings
from serving.protocol.errors import DeadlineExceeded, HotswapError, ServableNotFound, ServerUnavailable, ServingError
from serving.protocol.unknown_operations import explained
from serving.repository.model_config import ModelEntry
from serving.repository.stamp import ANSWER_TOLERANCE
from serving.repository.version_policy import Specific

log = logging.getLogger(__name__)

_TIMED_REQUESTS = 40
_TIMING_SECONDS = 1.0
_TIMINGS = 3
_SLOWDOWN = 2.0
_NOISE_MS = 10.0
_STARTS = 3
_START_SECONDS = 60.0
_POLL_SECONDS = 0.02
_MEGABYTE = 2**20


class SandboxUnavailable(HotswapError):
    """The sandbox's server cannot be started, which is not the candidate's fault."""


@dataclass(frozen=True, slots=True)
class SandboxDecision:
    """What the sandbox found."""

    checks: tuple[Check, ...]
    log: str = ""
    """the last lines of the server's log, where the candidate was rejected"""

    @property
    def verdict(self) -> Verdict:
        passed = all(check.verdict is Verdict.PASSED for check in self.checks)
        return Verdict.PASSED if passed else Verdict.REJECTED

    @property
    def reason(self) -> str:
        """Why it was rejected; empty when it passed."""
        return "; ".join(check.why for check in self.checks if check.verdict is not Verdict.PASSED)

    @property
    def markdown(self) -> str:
        last_lines = f"\nThe server's last lines:\n\n```text\n{self.log}\n```\n" if self.log else ""
        return markdown_report(f"Sandbox: {self.verdict}", self.checks) + last_lines

    @property
    def json(self) -> str:
        return json.dumps({"verdict": self.verdict, **asdict(self)}, indent=2)


class SandboxServer:
    """
    A model server that starts with the block and is killed with it.

    It serves nothing until `judge` gives it a trial.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._exceeded = False
        self._stopped = False
        self._peak_mb = 0.0
        self._given: Endpoint | None = None

    def __enter__(self) -> Self:
        binary = self._settings.sandbox_server
        if binary is not None and not (binary.is_file() and os.access(binary, os.X_OK)):
            raise SandboxUnavailable(f"HOTSWAP_SANDBOX_SERVER={binary} is not a program that can be run")
        self._workspace = tempfile.TemporaryDirectory(prefix="hotswap-sandbox-")
        self._directory = Path(self._workspace.name)
        self._process = self._start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Kill it; there are no requests but ours."""
        if not self._stopped:
            self._stopped = True
            self._process.end(time.monotonic())
            self._workspace.cleanup()

    def judge(self, trial: Trial) -> SandboxDecision:
        """
        Serve `candidate` and ask it its rows.

        Raises:
            SandboxUnavailable: The server did not start.
        """
        endpoint = self._ready()
        timeout_seconds = self._settings.server_timeout_seconds
        with ExitStack() as stack:
            rest = stack.enter_context(RestClient(endpoint.rest_url, timeout_seconds))
            grpc = stack.enter_context(GrpcClient(endpoint.grpc_target, timeout_seconds))
            stack.enter_context(_Watch(self._process.pid, self._note_memory))
            return self._checked(trial, rest, grpc)

    def _checked(self, trial: Trial, rest: RestClient, grpc: GrpcClient) -> SandboxDecision:
        """The checks, in the order in which one makes sense after the other; the first that fails is the last."""
        budget = self._settings.sandbox_memory_mb
        steps: tuple[tuple[str, str, Callable[[], tuple[str, str]]], ...] = (
            ("sandbox load", "available", lambda: self._load(trial, grpc)),
            ("sandbox REST", f"off by <= {ANSWER_TOLERANCE:g}", lambda: check_answers(trial, rest)),
            ("sandbox gRPC", f"off by <= {ANSWER_TOLERANCE:g}", lambda: check_answers(trial, grpc)),
            ("sandbox rows apart", f"off by <= {ANSWER_TOLERANCE:g}", lambda: check_rows_apart(trial, rest, grpc)),
            ("sandbox latency", _latency_required(trial), lambda: self._time(trial, grpc)),
            ("sandbox memory", f"<= {budget} MB", self._memory),
        )
        checks: list[Check] = []
        for name, required, step in steps:
            try:
                measured, why = step()
            except HotswapError as exc:
                measured = exc.measured if isinstance(exc, Unfit) else "no answer"
                why = self._shown(trial, self._failure_reason(exc) or str(exc))
                checks.append(Check(name, measured, required, Verdict.REJECTED, why))
                return SandboxDecision(tuple(checks), self._shown(trial, self._process.last_lines))
            checks.append(Check(name, measured, required, Verdict.PASSED, why))
        return SandboxDecision(tuple(checks))

    def _shown(self, trial: Trial, text: str) -> str:
        """`text` without the directories that are gone when it is read."""
        for directory in (self._directory / "models", self._directory, trial.saved_model.parent):
            text = without(directory, text)
        return text

    def _load(self, trial: Trial, grpc: GrpcClient) -> tuple[str, str]:
        base_path = self._directory / "models" / trial.model
        base_path.mkdir(parents=True)
        links = {trial.version: trial.saved_model, **dict([trial.champion] if trial.champion else [])}
        for version, path in links.items():
            (base_path / str(version)).symlink_to(path.absolute())
        started = time.monotonic()
        try:
            grpc.reload([ModelEntry(trial.model, str(base_path), Specific(tuple(sorted(links))))])
        except (ServerUnavailable, DeadlineExceeded):
            raise
        except ServingError as exc:
            raise Unfit("not loaded", f"the server cannot load it: {exc}") from exc
        while True:
            try:
                found = [each for each in grpc.status(trial.model) if each.version == trial.version]
            except ServableNotFound:
                found = []
            seconds = time.monotonic() - started
            if found and found[0].state.name == "AVAILABLE":
                return f"{seconds:.1f} s", "the server has loaded and warmed it up"
            if found and found[0].message:
                raise Unfit("not loaded", f"the server cannot load it: {explained(found[0].message)}")
            if seconds > self._settings.server_timeout_seconds:
                raise Unfit(f"{seconds:.1f} s", "the server has not loaded it (HOTSWAP_SERVER_TIMEOUT_SECONDS)")
            time.sleep(_POLL_SECONDS)

    def _time(self, trial: Trial, grpc: GrpcClient) -> tuple[str, str]:
        """What is slow is slow every time, and what is disturbed is not: the best of a few measurements counts."""
        champion = trial.champion and self._champion_version(trial, grpc)
        versions = [trial.version, *([champion] if champion else [])]
        best, allowed = float("inf"), self._settings.sandbox_p95_ms
        for _ in range(_TIMINGS):
            p95 = _p95_ms(grpc, trial, versions)
            if p95[trial.version] < best:
                best = p95[trial.version]
                if champion:
                    relative = max(_SLOWDOWN * p95[champion], p95[champion] + _NOISE_MS)
                    allowed = min(self._settings.sandbox_p95_ms, relative)
            if best <= allowed:
                beside = f" beside version {champion}, which takes {p95[champion]:.1f} ms" if champion else ""
                return f"p95 {best:.1f} ms", f"quick enough{beside}"
        limit = f"{allowed:.1f} ms" + (f", from what version {champion} takes" if champion else "")
        raise Unfit(
            f"p95 {best:.1f} ms", f"too slow: 95 of 100 one-row answers take {best:.1f} ms, allowed are {limit}"
        )

    def _champion_version(self, trial: Trial, grpc: GrpcClient) -> int | None:
        """The champion's number, where the sandbox could load it and it answers the same rows."""
        assert trial.champion is not None
        version = trial.champion[0]
        deadline = time.monotonic() + self._settings.server_timeout_seconds
        while time.monotonic() < deadline:
            found = next((each for each in grpc.status(trial.model) if each.version == version), None)
            if found is not None and found.state.name == "AVAILABLE":
                with suppress(HotswapError):
                    grpc.predict(trial.model, trial.rows[:1], version=version)
                    return version
                break
            if found is None or found.message:
                break
            time.sleep(_POLL_SECONDS)
        log.warning("champion cannot be timed in the sandbox model=%s version=%d", trial.model, version)
        return None

    def _memory(self) -> tuple[str, str]:
        return f"{self._peak_mb:.0f} MB", "the most that the server took"

    def _note_memory(self, megabytes: float) -> None:
        self._peak_mb = max(self._peak_mb, megabytes)
        if megabytes > self._settings.sandbox_memory_mb and not self._exceeded:
            self._exceeded = True
            self._process.kill()

    def _failure_reason(self, exc: HotswapError) -> str:
        """What became of the server, where that is why it did not answer; else empty."""
        deadline = time.monotonic() + 1.0
        while isinstance(exc, ServerUnavailable) and not self._process.ended and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        if self._exceeded:
            limit = self._settings.sandbox_memory_mb
            return f"the server took {self._peak_mb:.0f} MB with it, more than {limit} MB (HOTSWAP_SANDBOX_MEMORY_MB)"
        if self._process.ended:
            return "the server crashed with it"
        return "it did not answer in time" if isinstance(exc, DeadlineExceeded) else ""

    def _ready(self) -> Endpoint:
        """Where it answers; a start that failed, for instance on a port that was taken meanwhile, is repeated."""
        deadline = time.monotonic() + _START_SECONDS
        for start in range(_STARTS):
            if start:
                self._process.end(time.monotonic())
                self._process = self._start()
            while not self._process.ended:
                if (endpoint := self._endpoint()) is not None:
                    return endpoint
                if time.monotonic() > deadline:
                    break
                time.sleep(_POLL_SECONDS)
        raise SandboxUnavailable(f"The sandbox's server did not start; its last lines:\n{self._process.last_lines}")

    def _start(self) -> Process:
        config = self._directory / "models.config"
        config.write_text("model_config_list {}\n")
        (self._directory / "ports.json").unlink(missing_ok=True)
        flags = [f"--model_config_file={config}", "--max_num_load_retries=0"]
        binary = self._settings.sandbox_server
        if binary is None:
            ports = ["--ephemeral_ports", f"--ports_file={self._directory / 'ports.json'}"]
            return Process("sandbox", [sys.executable, "-m", "serving", *ports, *flags], self._directory)
        rest_port, grpc_port = _free_ports()
        self._given = Endpoint(f"http://127.0.0.1:{rest_port}", f"127.0.0.1:{grpc_port}")
        ports = [f"--port={grpc_port}", f"--rest_api_port={rest_port}"]
        return Process("sandbox", [str(binary.absolute()), *ports, *flags], self._directory)

    def _endpoint(self) -> Endpoint | None:
        """Where the process listens; None while it does not."""
        if self._given is not None:
            addresses = (self._given.rest_url.removeprefix("http://"), self._given.grpc_target)
            return self._given if all(map(_listens, addresses)) else None
        try:
            ports = json.loads((self._directory / "ports.json").read_text())
        except FileNotFoundError:
            return None
        return Endpoint(ports["rest"], ports["grpc"])


class _Watch:
    """
    Reports how many megabytes are resident in a process and those it has started, many times a second.

    A limit on address space or data would count what TensorFlow reserves and never touches.
    """

    def __init__(self, pid: int, report: Callable[[float], None]) -> None:
        self._pid = pid
        self._report = report
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sandbox-memory", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        with suppress(psutil.NoSuchProcess):
            leader = psutil.Process(self._pid)
            processes = [leader, *leader.children(recursive=True)]
            while not self._ended.wait(_POLL_SECONDS):
                self._report(sum(each.memory_info().rss for each in processes) / _MEGABYTE)


def _p95_ms(grpc: GrpcClient, trial: Trial, versions: list[int]) -> dict[int, float]:
    """Ask one row at a time, the versions in turn, so that both meet the same disturbances."""
    taken: dict[int, list[float]] = {version: [] for version in versions}
    deadline = time.monotonic() + _TIMING_SECONDS
    for number in range(_TIMED_REQUESTS):
        row = trial.rows[[number % len(trial.rows)]]
        for version in versions:
            started = time.perf_counter()
            grpc.predict(trial.model, row, version=version)
            taken[version].append((time.perf_counter() - started) * 1000)
        if time.monotonic() > deadline:
            break
    return {version: float(np.percentile(milliseconds, 95)) for version, milliseconds in taken.items()}


def _latency_required(trial: Trial) -> str:
    return "p95 within budget" + (f" and {_SLOWDOWN:g} times the champion's" if trial.champion else "")


def _free_ports() -> tuple[int, int]:
    """Two ports that nobody has just now."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return one.getsockname()[1], other.getsockname()[1]


def _listens(address: str) -> bool:
    host, port = address.split(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True
