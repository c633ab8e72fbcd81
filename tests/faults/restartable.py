"""Real servers in processes of their own, that go away, come back, or stop answering for a while."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import requests

from flows.settings import Settings
from tests.faults.points import environment
from tests.faults.server_process import PROJECT
from tests.ports import free_ports


class Restartable:
    """A server that keeps its ports when it is started again."""

    def __init__(self, command: Sequence[str], url: str, ready: str, log: Path, **variables: str) -> None:
        """`ready` is the path below `url` that answers when the server has started."""
        self.url = url
        self._command = [sys.executable, "-m", *command]
        self._ready = url + ready
        self._log = log
        self._environment = {**os.environ, **variables}
        self.start()
        self.wait()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=PROJECT, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )

    def wait(self) -> None:
        """Return when it answers."""
        deadline = time.monotonic() + 120
        while not self._answers():
            assert self._process.poll() is None, self._log.read_text("utf-8", "replace")
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def kill(self) -> None:
        """It is gone at once, with its children, if it was there."""
        if self._process.poll() is not None:
            return
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(30)

    def restart(self) -> None:
        """It is gone at once, and starts again without anybody waiting for it."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """It takes connections and answers none, until `go_on`."""
        os.killpg(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.killpg(self._process.pid, signal.SIGCONT)

    def _answers(self) -> bool:
        try:
            return requests.get(self._ready, timeout=5).ok
        except requests.RequestException:
            return False


def mlflow_server(directory: Path) -> Restartable:
    """``mlflow server`` with database and artifacts below `directory`."""
    (port,) = free_ports(1)
    command = ["mlflow", "server", "--workers", "1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{directory}/mlflow.db"]
    command += ["--artifacts-destination", str(directory / "artifacts")]
    return Restartable(command, f"http://127.0.0.1:{port}", "/health", directory / "mlflow.log")


def model_server(settings: Settings, directory: Path) -> Restartable:
    """``hotswap serve``"""
    log = directory / "serve.log"
    return Restartable(["flows.cli", "serve"], settings.rest_url, "/readyz", log, **environment(settings))
