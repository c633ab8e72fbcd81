"""Real servers in processes of their own, that go away, come back, or stop answering for a while."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

import requests

from flows.registry import mlflow_page
from flows.settings import Settings
from tests.faults.points import environment
from tests.ports import free_ports
from tests.processes import run_hotswap, start_with


class Restartable:
    """A server that keeps its ports when it is started again."""

    def __init__(self, begin: Callable[[], BaseProcess], url: str, ready: str, log: Path) -> None:
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


def mlflow_server(directory: Path) -> Restartable:
    """MLflow's server, as `hotswap up` runs it, with database and artifacts below `directory`."""
    (port,) = free_ports(1)
    arguments = ["--workers", "1", "--port", str(port), "--artifacts-destination", str(directory / "artifacts")]
    variables = {**os.environ, "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{directory}/mlflow.db"}
    log = directory / "mlflow.log"
    begin = partial(start_with, variables, _serve_mlflow, log, arguments)
    return Restartable(begin, f"http://127.0.0.1:{port}", "/health", log)


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


def _serve_mlflow(log: Path, arguments: Sequence[str]) -> None:
    lead_group(log)
    mlflow_page.main(arguments)


def _serve(log: Path) -> None:
    lead_group(log)
    run_hotswap(["serve"])
