"""
The sandbox: the candidate is tried in a production server before anyone depends on it.

A server serves the candidate beside the champion and is asked real rows, over REST and gRPC: it must load the model,
answer as it was judged, answer each row whatever is asked with it, and stay within the budgets of time and memory.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass

import numpy as np

from clients.grpc_client import GrpcClient
from clients.rest_client import RestClient
from flows.gate.checks import Check, markdown_report
from flows.gate.noninferiority import Verdict
from flows.gate.replay import disagreement
from flows.gate.sandbox_answers import Trial, Unfit, check_answers, check_rows_apart
from flows.gate.sandbox_server import POLL_SECONDS, SandboxServer
from flows.machine.workspaces import without
from serving.protocol.errors import DeadlineExceeded, HotswapError, ServableNotFound, ServerUnavailable, ServingError
from serving.protocol.unknown_operations import explained
from serving.repository.answers import ANSWER_TOLERANCE
from serving.repository.model_config import ModelEntry
from serving.repository.version_policy import Specific

log = logging.getLogger(__name__)

_TIMED_REQUESTS = 40
_TIMING_SECONDS = 1.0
_TIMINGS = 3
_SLOWDOWN = 2.0
_NOISE_MS = 10.0


@dataclass(frozen=True, slots=True)
class SandboxDecision:
    """What the sandbox found."""

    checks: tuple[Check, ...]
    log: str = ""
    """the last lines of the server's log, where the candidate was rejected"""
    disagreement: float | None = None
    """share of logged rows that the candidate answers otherwise than the live version; None where none were asked"""

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


def try_served(server: SandboxServer, trial: Trial) -> SandboxDecision:
    """
    Serve a candidate and ask it its rows.

    Raises:
        SandboxUnavailable: The server did not start.
    """
    endpoint, timeout_seconds = server.ready(), server.settings.server_timeout_seconds
    with (
        RestClient(endpoint.rest_url, timeout_seconds) as rest,
        GrpcClient(endpoint.grpc_target, timeout_seconds) as grpc,
        server.measured(),
    ):
        return _Session(server, trial, rest, grpc).decide()


class _Session:
    """One trial on a server that runs."""

    def __init__(self, server: SandboxServer, trial: Trial, rest: RestClient, grpc: GrpcClient) -> None:
        self._server = server
        self._settings = server.settings
        self._trial = trial
        self._rest = rest
        self._grpc = grpc
        self._disagreement: float | None = None

    def decide(self) -> SandboxDecision:
        """The checks, in the order in which one makes sense after the other; the first that fails is the last."""
        trial, rest, grpc = self._trial, self._rest, self._grpc
        tolerance, budget = f"off by <= {ANSWER_TOLERANCE:g}", f"<= {self._settings.sandbox_memory_mb} MB"
        steps: tuple[tuple[str, str, Callable[[], tuple[str, str]]], ...] = (
            ("sandbox load", "available", self._load),
            ("sandbox REST", tolerance, lambda: check_answers(trial, rest)),
            ("sandbox gRPC", tolerance, lambda: check_answers(trial, grpc)),
            ("sandbox rows apart", tolerance, lambda: check_rows_apart(trial, rest, grpc)),
            *((("sandbox replay", "answered", self._replay),) if len(trial.replay) else ()),
            ("sandbox latency", _latency_required(trial), self._time),
            ("sandbox memory", budget, self._memory),
        )
        checks: list[Check] = []
        for name, required, step in steps:
            try:
                measured, why = step()
            except HotswapError as exc:
                measured = exc.measured if isinstance(exc, Unfit) else "no answer"
                why = self._shown(self._server.failure_reason(exc) or str(exc))
                checks.append(Check(name, measured, required, Verdict.REJECTED, why))
                return SandboxDecision(tuple(checks), self._shown(self._server.last_lines))
            checks.append(Check(name, measured, required, Verdict.PASSED, why))
        return SandboxDecision(tuple(checks), disagreement=self._disagreement)

    def _shown(self, text: str) -> str:
        """`text` without the directories that are gone when it is read."""
        for directory in (self._server.directory / "models", self._server.directory, self._trial.saved_model.parent):
            text = without(directory, text)
        return text

    def _load(self) -> tuple[str, str]:
        base_path = self._server.directory / "models" / self._trial.model
        base_path.mkdir(parents=True)
        links = {
            self._trial.version: self._trial.saved_model,
            **dict(filter(None, [self._trial.champion])),
        }
        for version, path in links.items():
            (base_path / str(version)).symlink_to(path.absolute())
        started = time.monotonic()
        try:
            self._grpc.reload([ModelEntry(self._trial.model, str(base_path), Specific(tuple(sorted(links))))])
        except (ServerUnavailable, DeadlineExceeded):
            raise
        except ServingError as exc:
            raise Unfit("not loaded", f"the server cannot load it: {exc}") from exc
        while True:
            try:
                found = [each for each in self._grpc.status(self._trial.model) if each.version == self._trial.version]
            except ServableNotFound:
                found = []
            seconds = time.monotonic() - started
            if found and found[0].state.name == "AVAILABLE":
                return f"{seconds:.1f} s", "the server has loaded and warmed it up"
            if found and found[0].message:
                raise Unfit("not loaded", f"the server cannot load it: {explained(found[0].message)}")
            if seconds > self._settings.server_timeout_seconds:
                raise Unfit(f"{seconds:.1f} s", "the server has not loaded it (HOTSWAP_SERVER_TIMEOUT_SECONDS)")
            time.sleep(POLL_SECONDS)

    def _time(self) -> tuple[str, str]:
        """What is slow is slow every time, and what is disturbed is not: the best of a few measurements counts."""
        champion = self._trial.champion and self._champion_version()
        versions = [self._trial.version, *([champion] if champion else [])]
        best, allowed = float("inf"), self._settings.sandbox_p95_ms
        for _ in range(_TIMINGS):
            p95 = _p95_ms(self._grpc, self._trial, versions)
            if p95[self._trial.version] < best:
                best = p95[self._trial.version]
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

    def _replay(self) -> tuple[str, str]:
        trial = self._trial
        champion = self._champion_version() if trial.champion else None
        share = disagreement(trial.replay, self._grpc, trial.model, trial.version, champion)
        self._disagreement = share
        if share is None:
            return "answered", f"{len(trial.replay)} logged rows are answered"
        asked = f"of {len(trial.replay)} logged rows"
        return f"{share:.1%} differ", f"{asked} so many are answered otherwise than by version {champion}"

    def _champion_version(self) -> int | None:
        """The champion's number, where the sandbox could load it and it answers the same rows."""
        assert self._trial.champion is not None
        version = self._trial.champion[0]
        deadline = time.monotonic() + self._settings.server_timeout_seconds
        while time.monotonic() < deadline:
            found = next((each for each in self._grpc.status(self._trial.model) if each.version == version), None)
            if found is not None and found.state.name == "AVAILABLE":
                with suppress(HotswapError):
                    self._grpc.predict(self._trial.model, self._trial.asked(np.arange(1)), version=version)
                    return version
                break
            if found is None or found.message:
                break
            time.sleep(POLL_SECONDS)
        log.warning("champion cannot be timed in the sandbox model=%s version=%d", self._trial.model, version)
        return None

    def _memory(self) -> tuple[str, str]:
        return f"{self._server.peak_mb:.0f} MB", "the most that the server took"


def _p95_ms(grpc: GrpcClient, trial: Trial, versions: list[int]) -> dict[int, float]:
    """Ask one row at a time, the versions in turn, so that both meet the same disturbances."""
    taken: dict[int, list[float]] = {version: [] for version in versions}
    deadline = time.monotonic() + _TIMING_SECONDS
    for number in range(_TIMED_REQUESTS):
        row = trial.asked(np.array([number % len(trial)]))
        for version in versions:
            started = time.perf_counter()
            grpc.predict(trial.model, row, version=version)
            taken[version].append((time.perf_counter() - started) * 1000)
        if time.monotonic() > deadline:
            break
    return {version: float(np.percentile(milliseconds, 95)) for version, milliseconds in taken.items()}


def _latency_required(trial: Trial) -> str:
    return "p95 within budget" + (f" and {_SLOWDOWN:g} times the champion's" if trial.champion else "")
