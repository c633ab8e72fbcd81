"""Real servers in processes of their own, that go away, come back, or stop answering for a while."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import requests

from flows.settings import Settings
from tests.faults.points import environment
from tests.faults.server_process import PROJECT
from tests.ports import free_ports
from tests.processes import run_hotswap, start_with


class Running(Protocol):
    """A process that leads a group of its own."""

    @property
    def pid(self) -> int | None: ...

    @property
    def exitcode(self) -> int | None:
        """None while it runs."""

    def join(self, timeout: float | None = None) -> None: ...


class Restartable:
    """A server that keeps its ports when it is started again."""

    def __init__(self, begin: Callable[[], Running], url: str, ready: str, log: Path) -> None:
        """`ready` is the path below `url` that answers when the server has started."""
        self.url = url
        self._begin = begin
        self._ready = url + ready
        self._log = log
        self.start()
        self.wait()

    def start(self) -> None:
        self._process = self._begin()

    def wait(self) -> None:
        """Return when it answers."""
        deadline = time.monotonic() + 120
        while not self._answers():
            assert self._process.exitcode is None, self._log.read_text("utf-8", "replace")
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def kill(self) -> None:
        """It is gone at once, with its children, if it was there."""
        if self._process.exitcode is None:
            self._signal(signal.SIGKILL)
            self._process.join(30)

    def restart(self) -> None:
        """It is gone at once, and starts again without anybody waiting for it."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """It takes connections and answers none, until `go_on`."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process.pid is not None
        os.killpg(self._process.pid, number)

    def _answers(self) -> bool:
        try:
            return requests.get(self._ready, timeout=5).ok
        except requests.RequestException:
            return False


class Program:
    """``python -m …``"""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=PROJECT,
                env=environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.pid = self._process.pid

    @property
    def exitcode(self) -> int | None:
        return self._process.poll()

    def join(self, timeout: float | None = None) -> None:
        self._process.wait(timeout)


def mlflow_server(directory: Path) -> Restartable:
    """``mlflow server`` with database and artifacts below `directory`."""
    (port,) = free_ports(1)
    command = ["mlflow", "server", "--workers", "1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{directory}/mlflow.db"]
    command += ["--artifacts-destination", str(directory / "artifacts")]
    log = directory / "mlflow.log"
    return Restartable(partial(Program, command, log, dict(os.environ)), f"http://127.0.0.1:{port}", "/health", log)


def model_server(settings: Settings, directory: Path) -> Restartable:
    """``hotswap serve``"""
    log = directory / "serve.log"
    begin = partial(start_with, {**os.environ, **environment(settings)}, _serve, log)
    return Restartable(begin, settings.rest_url, "/readyz", log)


def lead_group(log: Path) -> None:
    """Let this process, which was forked, have a group of its own, and write to `log`."""
    os.setsid()
    with log.open("ab") as output:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(output.fileno(), stream.fileno())


def _serve(log: Path) -> None:
    lead_group(log)
    run_hotswap(["serve"])
