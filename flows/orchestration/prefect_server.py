"""
The Prefect server that a flow reports to: the configured one, that of `hotswap up`, or a temporary one.

A temporary server is started before anything else, on the other core, while this process imports TensorFlow and MLflow.
It keeps its records in ``PREFECT_HOME``, so a later Prefect server shows the run, and it ends with this process,
however that ends.
"""

from __future__ import annotations

import atexit
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import requests

from flows.orchestration.prefect_access import PrefectUnavailable
from flows.settings import Settings, prepare_home

REASONS = {
    "Can't locate revision": "its database is of a newer release of Prefect: install that release, or move "
    "prefect/prefect.db out of HOTSWAP_HOME, which has the records of flow runs and the schedules"
}
"""why a server of ours ended, by what its log says"""
_START_SECONDS = 120.0
_STOP_SECONDS = 10.0
_MAX_RESTARTS = 1
_SERVER_SETTINGS = {
    "PREFECT_UI_ENABLED": "0",
    "PREFECT_SERVER_UI_ENABLED": "0",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "WARNING",  # its log says why it did not start
}


def find_prefect(settings: Settings) -> TemporaryPrefect | None:
    """
    Make ``PREFECT_API_URL`` point to a server: the configured one, else that of `hotswap up`, else a temporary one.

    Returns:
        A temporary one that has just been started, which may not answer yet.
    """
    if "PREFECT_API_URL" in os.environ or find_running_prefect(settings):
        return None
    home = settings.home.absolute()
    if home in _of_this_process and _of_this_process[home].take_over():
        return None
    _of_this_process[home] = started = TemporaryPrefect(settings)
    return started


def find_running_prefect(settings: Settings) -> bool:
    """Make ``PREFECT_API_URL`` point to the configured server or that of `hotswap up`; whether it answers."""
    api_url = os.environ.get("PREFECT_API_URL", f"http://{settings.url_host}:{settings.prefect_port}/api")
    if not _answers(api_url):
        return False
    os.environ["PREFECT_API_URL"] = api_url
    return True


_of_this_process: dict[Path, TemporaryPrefect] = {}
"""by home: who trains twice from Python starts one server"""


class TemporaryPrefect:
    """A Prefect server for the length of this process; `PREFECT_API_URL` points to it from the start."""

    def __init__(self, settings: Settings) -> None:
        self.log_path = prepare_home(settings) / "logs" / "prefect-temporary.log"
        self.log_path.unlink(missing_ok=True)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self._port = listening.getsockname()[1]
            self._process = self._start_on(listening)
        self.api_url = f"http://127.0.0.1:{self._port}/api"
        # Where the run can be looked at later, when this server is gone.
        self._ui_url = f"http://{settings.url_host}:{settings.prefect_port}"
        self.take_over()
        # Registered before Prefect is imported, so that it runs after Prefect has sent its last records.
        atexit.register(self.dismiss)

    def take_over(self) -> bool:
        """Let the environment name this server; False if it has ended."""
        if self._process.poll() is not None:
            return False
        os.environ["PREFECT_API_URL"] = self.api_url
        os.environ.setdefault("PREFECT_UI_URL", self._ui_url)
        return True

    def wait(self) -> None:
        """
        Return when it answers; a start that failed, as on a machine that is busy, is repeated.

        Raises:
            PrefectUnavailable: It ended again, or took too long; the message names its log.
        """
        deadline = time.monotonic() + _START_SECONDS
        restarts = _MAX_RESTARTS
        while not _answers(self.api_url):
            has_ended = self._process.poll() is not None
            reason = self._reason() if has_ended else ""
            if (has_ended and not restarts) or reason or time.monotonic() > deadline:
                why = f", as {reason}" if reason else f": see {self.log_path}"
                raise PrefectUnavailable(f"The temporary Prefect server did not start{why}")
            if has_ended:
                restarts -= 1
                self._process.communicate()
                self._process = self._start()
            time.sleep(0.05)

    def _reason(self) -> str:
        """Why it ended, where its log says it; empty where it may be worth another try."""
        said = self.log_path.read_text("utf-8", "replace")
        return next((reason for text, reason in REASONS.items() if text in said), "")

    def dismiss(self) -> None:
        """Tell it to end, without waiting while it writes its last records."""
        self._process.terminate()

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        if os.environ.get("PREFECT_API_URL") == self.api_url:
            del os.environ["PREFECT_API_URL"]

    def _start(self) -> subprocess.Popen[bytes]:
        with socket.create_server(("127.0.0.1", self._port)) as listening:
            return self._start_on(listening)

    def _start_on(self, listening: socket.socket) -> subprocess.Popen[bytes]:
        environment = {**os.environ, **_SERVER_SETTINGS}
        command = [sys.executable, "-m", "flows.orchestration.temporary_prefect", str(listening.fileno())]
        with self.log_path.open("ab") as output:
            return subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=Path(__file__).parents[2],
                pass_fds=[listening.fileno()],
                start_new_session=True,
            )


def check_answers(api_url: str) -> None:
    """
    Raises:
        PrefectUnavailable: Nothing answers at the address that is configured.
    """
    if not _answers(api_url):
        raise PrefectUnavailable(
            f"No Prefect server answers at PREFECT_API_URL={api_url}: start it with `hotswap up`, or unset the variable"
        )


def _answers(api_url: str) -> bool:
    try:
        return requests.get(f"{api_url.rstrip('/')}/health", timeout=5).status_code == 200
    except (requests.RequestException, ValueError):
        return False
