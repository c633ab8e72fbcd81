"""A supervised process is restarted, whatever ends it, and never at the cost of another."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.local.ports import check_ports
from flows.local.supervision import CRASH_LOOP, Service, Supervisor
from flows.machine.processes import MAX_LOG_BYTES, Process
from flows.settings import Settings
from tests.waiting import until

SERVER = """
import http.server, os, sys
print("started", flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""
MASTER = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]])"
"""one that lets a child of its own do the work"""


@pytest.fixture
def port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@dataclass
class Supervised:
    """A service under supervision, in this process."""

    supervisor: Supervisor
    stop_requested: threading.Event = field(default_factory=threading.Event)

    def leader(self) -> psutil.Process:
        """The process that runs now, once it is ready."""
        until(lambda: self.supervisor.is_ready)
        port = next(iter(self.supervisor.service.ports.values()))
        return next(each for each in psutil.Process().children() if str(port) in each.cmdline())


@pytest.fixture
def supervise(tmp_path: Path, port: int) -> Iterator[Callable[..., Supervised]]:
    """Starts a small web server, or another Python program, under supervision; it is stopped when the test ends."""
    running: list[Supervised] = []

    def start(*program: str, **settings: Any) -> Supervised:
        command = [sys.executable, "-c", *(program or (SERVER,)), str(port)]
        url = f"http://127.0.0.1:{port}"
        service = Service("page", lambda: command, url, url, {"HOTSWAP_MLFLOW_PORT": port}, **settings)
        stop_requested = threading.Event()
        checked = Settings(home=tmp_path, models_repo=tmp_path / "models")
        supervisor = Supervisor(service, tmp_path, lambda it: check_ports(checked, {it.name: it.ports}), stop_requested)
        running.append(Supervised(supervisor, stop_requested))
        supervisor.start()
        return running[-1]

    yield start
    for each in running:
        each.stop_requested.set()
        each.supervisor.join()


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What a terminal would show."""
    caplog.set_level(logging.INFO, "flows.local.supervision")
    return lambda: [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_was_ended_runs_again(
    number: signal.Signals, supervise: Callable[..., Supervised], said: Callable[[], list[str]], tmp_path: Path
) -> None:
    """The signal is named, and its log is continued, not begun anew."""
    supervised = supervise()
    first = supervised.leader()
    first.send_signal(number)
    until(lambda: not first.is_running() and supervised.supervisor.is_ready)
    assert supervised.leader().pid != first.pid
    assert said()[0].startswith(f"page was ended by {number.name}: restarting it in 0.25 s, its log is ")
    until(lambda: len(said()) == 2)
    assert "page runs again" in said()[1]
    assert (tmp_path / "page.log").read_text().count("started") == 2


def test_a_worker_whose_master_was_killed_does_not_keep_the_port(
    supervise: Callable[..., Supervised], said: Callable[[], list[str]]
) -> None:
    """What the ended process has started is ended with it, so that the next one can listen."""
    supervised = supervise(MASTER, SERVER)
    master = supervised.leader()
    worker = next(each for each in master.children() if each.name() != "sh")
    master.kill()
    until(lambda: not worker.is_running() and supervised.supervisor.is_ready)
    assert "runs again" in said()[-1]


def test_a_process_that_hangs_is_started_again(
    supervise: Callable[..., Supervised], said: Callable[[], list[str]]
) -> None:
    """SIGSTOP does not end it, but it does not answer any more."""
    supervised = supervise(max_silence_seconds=0.1)
    first = supervised.leader()
    first.send_signal(signal.SIGSTOP)
    until(lambda: not first.is_running() and supervised.supervisor.is_ready)
    assert said()[0].startswith("page did not answer for 0.1 s: restarting it")


def test_a_crash_loop_is_reported_once_with_the_last_lines(
    supervise: Callable[..., Supervised], said: Callable[[], list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    """From then on only the log file has it, and the pauses grow; telling it to stop ends a pause at once."""
    supervised = supervise("raise SystemExit('no database')")
    until(lambda: len(said()) == CRASH_LOOP)
    assert all("page ended with exit code 1: restarting it" in each for each in said()[:-1])
    assert f"the {CRASH_LOOP}th time in a row" in said()[-1]
    assert said()[-1].endswith("page.log:\nno database")
    until(lambda: len(caplog.records) > CRASH_LOOP)
    assert len(said()) == CRASH_LOOP
    began = time.monotonic()
    supervised.stop_requested.set()
    supervised.supervisor.join()
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("said_by_it", "reason"),
    [("hotswap: its tables are old", "its tables are old"), ("RevisionError: ffff", "its tables are newer")],
)
def test_why_a_process_ended_is_told_at_once(
    said_by_it: str, reason: str, supervise: Callable[..., Supervised], said: Callable[[], list[str]]
) -> None:
    """Its own sentence, or that for what its log says: nobody has to look there."""
    supervise(f"raise SystemExit({said_by_it!r})", reasons={"RevisionError": "its tables are newer"})
    until(said)
    assert said()[0].startswith(f"page ended with exit code 1 ({reason}): restarting it in 0.25 s, its log is ")


def test_a_port_that_was_taken_meanwhile_is_named_and_waited_for(
    supervise: Callable[..., Supervised], said: Callable[[], list[str]], port: int
) -> None:
    """The message names who listens there; once the port is free the service runs again."""
    supervise(MASTER, "import time; time.sleep(60)", ready_seconds=0.1)
    until(lambda: said() and "was not ready after 0.1 s" in said()[0])
    with socket.create_server(("127.0.0.1", port)):
        until(lambda: any("cannot be used: Address already in use" in each for each in said()))
        assert f"process {os.getpid()}, " in said()[-1]
    count = len(said())
    until(lambda: any("was not ready" in each for each in said()[count:]))


def test_a_service_without_a_place_for_its_log_runs_all_the_same(
    supervise: Callable[..., Supervised], tmp_path: Path, port: int
) -> None:
    """A log is worth less than the process."""
    (tmp_path / "page.log").mkdir()
    supervise().leader()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=10) as answer:
        assert answer.status == 200


def test_a_log_does_not_grow_without_end(tmp_path: Path) -> None:
    """The log of a running process is cut, one older part is kept, and the process keeps writing."""
    script = f"yes | head -c {MAX_LOG_BYTES + 1}; while :; do echo more; sleep 0.1; done"
    process = Process("chatty", ["/bin/sh", "-c", script], tmp_path)
    try:
        until(lambda: process.log_path.stat().st_size > MAX_LOG_BYTES)
        process.limit_log()
        until(lambda: process.last_lines.startswith("more"))
        assert process.log_path.stat().st_size < 1000
        assert (tmp_path / "chatty.log.1").stat().st_size > MAX_LOG_BYTES
    finally:
        process.end(time.monotonic())
