"""`hotswap up --detach` and `hotswap down`: the stack without a terminal of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from typing import Any

import psutil

from flows.console import progress
from flows.machine.instance import running
from flows.machine.processes import STOP_SECONDS
from flows.settings import Settings, prepare_home
from serving.protocol.errors import HotswapError

_STOP_SECONDS = 2 * STOP_SECONDS + 25.0  # those that follow others end before them, each within `STOP_SECONDS`


class NotUp(HotswapError):
    """The stack did not start."""

    def __init__(self, sentence: str, exit_code: int) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code


class NotDown(HotswapError):
    """The stack does not end."""


def start(settings: Settings) -> dict[str, Any]:
    """
    Start ``hotswap up`` in a session of its own; what it announces, once it does.

    Raises:
        NotUp: It has ended instead; the message is its own.
    """
    log = prepare_home(settings) / "logs" / "terminal.log"
    progress.step("starting model server, MLflow page and Prefect server")
    with log.open("wb") as terminal:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", "up", "--json"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=terminal,
            start_new_session=True,
        )
    assert process.stdout is not None
    with process.stdout:
        line = process.stdout.readline()
    if not line:
        code = process.wait()
        said = log.read_text("utf-8", "replace").rpartition("hotswap: ")[2]
        raise NotUp(" ".join(said.split()) or f"hotswap up ended with exit code {code}", code)
    return dict(json.loads(line))


def stop(settings: Settings) -> int | None:
    """
    End the `hotswap up` of this home, and wait until all of it has ended; its process id, None where none runs.

    Raises:
        NotDown: It does not end.
    """
    home = settings.home.absolute()
    pid = running(home).get("pid")
    if not isinstance(pid, int):
        return None
    try:
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            process.terminate()
            process.wait(_STOP_SECONDS)
    except psutil.TimeoutExpired as exc:
        log = home / "logs" / "up.log"
        raise NotDown(f"Process {pid} has not ended after {_STOP_SECONDS:.0f} s: see {log}") from exc
    return pid
