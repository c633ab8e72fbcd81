"""
Keeps each process of `hotswap up` running, whatever happens to the others.

Every service has a thread that starts it, checks whether it answers, and restarts it when it has ended or hangs: at
once after a long run, else after a pause that grows. So one that ends again and again costs little, and the others
keep running.
"""

from __future__ import annotations

import logging
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from tenacity import RetryCallState, RetryError, Retrying, stop_when_event_set, wait_exponential
from tenacity.nap import sleep_using_event

from flows.machine.processes import STOP_SECONDS, Process
from serving.protocol.errors import HotswapError

log = logging.getLogger(__name__)

CRASH_LOOP = 5
"""so many ends in a row, none after a long run, are reported as a crash loop"""
_LONG_RUN_SECONDS = 60.0
_MAX_PAUSE_SECONDS = 60.0
_FIRST_PAUSE_SECONDS = 0.25
_POLL_SECONDS = 0.1
_PROBE_SECONDS = 5.0
_ANSWER_SECONDS = 2.0


class Ended(HotswapError):
    """A process ended, hangs, or was never ready; `str` says which, as in "ended with exit code 1"."""


@dataclass(frozen=True, slots=True)
class Service:
    """One process: its name, how it is started, and how to know that it answers."""

    name: str
    command: Callable[[], Sequence[str]]
    """called at each start, as what it serves may have changed"""
    url: str | None = None
    ready_url: str | None = None
    """None for a process that does not listen"""
    ports: Mapping[str, int] = field(default_factory=dict)
    """by the setting that changes each"""
    environment: Mapping[str, str] = field(default_factory=dict)
    ready_seconds: float = 120.0
    must_start: bool = False
    """whether a first start that fails is final"""
    output: int | None = None
    """where its standard output goes when that is for the user"""
    max_silence_seconds: float = 60.0
    """so long without an answer means that it hangs"""
    redact_log: bool = True
    """whether secrets are removed from its log here; a process that removes them itself need not wait for this one"""
    ends_its_own: bool = False
    """whether SIGTERM is for the process alone, which ends what it has started in good order"""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """by what its log says when it has ended, the sentence with the next step"""
    ready_file: Path | None = None
    """what is there while a process that does not listen is ready; None for one that always is"""


class Supervisor:
    """Keeps one service running in a thread of its own until `stop_requested` is set."""

    def __init__(
        self,
        service: Service,
        logs: Path,
        check_ports: Callable[[Service], None],
        stop_requested: threading.Event,
        announce_end: Callable[[str, str], None] = lambda name, how: None,
    ) -> None:
        """`announce_end` gets the name of a service that ended, and how; of a crash loop its beginning only."""
        self.service = service
        self.settled = threading.Event()
        """set once it is ready, or its first start has failed"""
        self.is_ready = False
        self.failure: HotswapError | None = None
        """why the first start failed of a service that must start"""
        self.process: Process | None = None
        """the one that runs, or that has ended last"""
        self.log_path = logs / f"{service.name.replace(' ', '-')}.log"
        self._logs = logs
        self._check_ports = check_ports
        self._stop_requested = stop_requested
        self._announce_end = announce_end
        self._ready_at: float | None = None
        self._thread = threading.Thread(target=self._run, name=f"supervise {service.name}", daemon=True)

    @property
    def state(self) -> dict[str, Any]:
        """What `hotswap status` says of it."""
        process = self.process
        runs = process is not None and not process.ended
        return {
            "name": self.service.name,
            "state": "ready" if self.is_ready else "starting" if runs else "waits for its next start",
            "url": self.service.url or "",
            "pid": process.pid if process is not None and runs else None,
            "log": str(self.log_path),
        }

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        """Wait until the process has ended, which it does once `stop_requested` is set."""
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        retrying = Retrying(
            wait=wait_exponential(multiplier=_FIRST_PAUSE_SECONDS, max=_MAX_PAUSE_SECONDS),
            sleep=sleep_using_event(self._stop_requested),
            stop=stop_when_event_set(self._stop_requested),
            before_sleep=self._report,
        )
        while not self._stop_requested.is_set() and self.failure is None:
            with suppress(RetryError):
                retrying(self._run_once)

    def _run_once(self) -> None:
        """
        Run it until a stop is requested, or it ends after a long run.

        Raises:
            HotswapError: It ended after a short run, or cannot be started.
        """
        if self._stop_requested.is_set():
            return
        self._ready_at = None
        try:
            self._check_ports(self.service)
            service = self.service
            self.process = Process(
                service.name, service.command(), self._logs, service.environment, service.output, service.redact_log
            )
            try:
                how = self._watch(self.process)
            finally:
                self._end(self.process)
            if how:
                raise Ended(f"{how}{self._reason(self.process)}")
        except HotswapError as exc:
            if self.service.must_start and not self.settled.is_set():
                self.failure = exc
                self.settled.set()
                return
            if self._ready_at is None or time.monotonic() - self._ready_at < _LONG_RUN_SECONDS:
                raise
            log.warning("%s %s: restarting it, its log is %s", self.service.name, exc, self.log_path)
            self._announce_end(self.service.name, str(exc))

    def _watch(self, process: Process) -> str:
        """Wait until the process ends, hangs, or is not ready in time, and return how; empty for a stop requested."""
        started = heard = time.monotonic()
        probe_at = 0.0
        while not self._stop_requested.wait(_POLL_SECONDS):
            if process.ended:
                return process.how_it_ended
            process.limit_log()
            now = time.monotonic()
            if now < probe_at:
                continue
            if self._answers(process):
                heard = now
                self._note_ready(now - started)
            elif not self.is_ready and now - started > self.service.ready_seconds:
                return f"was not ready after {self.service.ready_seconds:g} s"
            elif self.is_ready and now - heard > self.service.max_silence_seconds:
                return f"did not answer for {self.service.max_silence_seconds:g} s"
            probe_at = now + (min(_PROBE_SECONDS, self.service.max_silence_seconds) if self.is_ready else 0.0)
        return ""

    def _reason(self, process: Process) -> str:
        """The sentence for why it ended, where one is known."""
        lines = process.last_lines
        own = re.findall(r"^hotswap: (.+)$", lines, re.MULTILINE)
        known = [reason for text, reason in self.service.reasons.items() if text in lines]
        return "".join(f" ({reason})" for reason in [*own, *known][-1:])

    def _answers(self, process: Process) -> bool:
        """Once it was ready, any answer is one: a model server with a broken model has work to do."""
        url = self.service.ready_url
        if url is None:
            file = self.service.ready_file
            return not _is_stopped(process.pid) and (self.is_ready or file is None or file.exists())
        try:
            with urllib.request.urlopen(url, timeout=_ANSWER_SECONDS):
                return True
        except urllib.error.HTTPError as exc:
            exc.close()
            return self.is_ready
        except (OSError, ValueError):
            return False

    def _end(self, process: Process) -> None:
        self.is_ready = False
        if self._stop_requested.is_set():
            process.terminate(self.service.ends_its_own)
            process.end(time.monotonic() + STOP_SECONDS)
        else:
            process.end(time.monotonic())

    def _note_ready(self, seconds: float) -> None:
        if self.is_ready:
            return
        self.is_ready = True
        self._ready_at = time.monotonic()
        if self.settled.is_set():
            log.warning("%s runs again, %.1f s after it was started", self.service.name, seconds)
        self.settled.set()

    def _report(self, state: RetryCallState) -> None:
        """Log what happened; a crash loop only once, with the last lines of the process."""
        assert state.outcome is not None
        assert state.next_action is not None
        name, what, pause = self.service.name, state.outcome.exception(), state.next_action.sleep
        if state.attempt_number in (1, CRASH_LOOP):
            self._announce_end(name, str(what))
        if state.attempt_number == CRASH_LOOP:
            log.error(
                "%s %s, the %dth time in a row: it is restarted less and less often, and the others keep running; "
                "its log is %s:\n%s",
                name,
                what,
                CRASH_LOOP,
                self.log_path,
                self.process.last_lines if self.process else "",
            )
            return
        level = logging.WARNING if state.attempt_number < CRASH_LOOP else logging.INFO
        log.log(level, "%s %s: restarting it in %.2g s, its log is %s", name, what, pause, self.log_path)
        self.settled.set()


def _is_stopped(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_STOPPED
    except psutil.Error:
        return False
