"""
One Prefect server for all workers of pytest-xdist: each would take seconds of processor time to start, and more later.

Its standard input is a pipe that every worker holds, so it ends when the last of them has ended, however that ends.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from tests.conftest import at_home, copy_database

DATABASE = "prefect/prefect.db"
_START_SECONDS = 120.0


@contextmanager
def shared_prefect(directory: Path, python: str) -> Iterator[str]:
    """The address of its API; `directory`, the same for all workers, has its database as it was at first in ``new``."""
    address = directory / "api_url"
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        held = _hold(directory / "pipe")
        if held is None:
            held = _start(directory, address, python)
    try:
        yield address.read_text()
    finally:
        os.close(held)


def _hold(pipe: Path) -> int | None:
    """The end of the pipe that is written to, if a server has the other one."""
    try:
        return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return None


def _start(home: Path, address: Path, python: str) -> int:
    """Start a server, and wait until it answers; the end of its pipe."""
    pipe = home / "pipe"
    if not pipe.exists():
        os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reading, True)
    held = _hold(pipe)
    assert held is not None
    with socket.create_server(("127.0.0.1", 0)) as listening, (home / "log").open("ab") as log:
        address.write_text(f"http://127.0.0.1:{listening.getsockname()[1]}/api")
        _spawn(home, python, [reading, log.fileno(), log.fileno(), listening.fileno()])
    os.close(reading)
    _wait(f"{address.read_text()}/health", home / "log")
    (home / "new").mkdir(exist_ok=True)
    copy_database(home, home / "new", DATABASE)
    return held


def _spawn(home: Path, python: str, descriptors: list[int]) -> None:
    """Start it with these descriptors as its first ones, and leave it to itself, as no worker outlives all others."""
    command = [python, "-m", "flows.orchestration.temporary_prefect", "3"]
    actions = [(os.POSIX_SPAWN_DUP2, each, number) for number, each in enumerate(descriptors)]
    with at_home(home):
        environment = {**os.environ, "PREFECT_UI_ENABLED": "0", "PREFECT_SERVER_UI_ENABLED": "0"}
        os.posix_spawn(python, command, environment, file_actions=actions, setsid=True)


def _wait(url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            if requests.get(url, timeout=5).ok:
                return
        except requests.RequestException:
            assert time.monotonic() < deadline, log.read_text("utf-8", "replace")
            time.sleep(0.05)
