"""
Lets only one `hotswap up` run in a home.

It holds a lock on a file, which the kernel frees with the process; a process id would not do, as it is given to another
process later. The file beside the lock describes the running `up`, for messages only.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from serving.protocol.errors import HotswapError
from serving.protocol.redaction import redacted_values
from serving.repository.files import write_atomically

_LOCK, _DESCRIPTION, _SERVICES = "up.lock", "up.json", "services.json"
_ACQUIRE_SECONDS = 0.5  # somebody may be looking whether the lock is free
_POLL_SECONDS = 0.1


class AlreadyUp(HotswapError):
    """`hotswap up` runs here already."""

    exit_code = 6


@contextmanager
def only_instance(home: Path, facts: Mapping[str, Any]) -> Iterator[bool]:
    """
    Be the only `hotswap up` of this home for the block; `facts` is what another one reports about this one.

    Yields:
        Whether the one before was killed, so that its processes may still be ending.

    Raises:
        AlreadyUp: Another process is.
    """
    lock, description = FileLock(home / _LOCK), home / _DESCRIPTION
    try:
        lock.acquire(timeout=_ACQUIRE_SECONDS)
    except Timeout as exc:
        raise AlreadyUp(_described(home, description)) from exc
    try:
        was_killed = description.exists()
        with suppress(OSError):
            write_atomically(description, json.dumps(redacted_values({"pid": os.getpid(), **facts})) + "\n")
        yield was_killed
    finally:
        for each in (description, home / _SERVICES):
            each.unlink(missing_ok=True)
        lock.release()


def running(home: Path) -> dict[str, Any]:
    """What the `hotswap up` that runs in this home has told of itself; empty where none does."""
    try:
        with (home / _LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return {}
    except BlockingIOError:
        return _read(home / _DESCRIPTION)
    except OSError:
        return {}


def running_addresses(home: Path) -> dict[str, str]:
    """The addresses by service of the `hotswap up` that runs in this home; empty where none does."""
    return dict(running(home).get("addresses", {}))


def keep_services(home: Path, services: Sequence[Mapping[str, Any]]) -> None:
    """Let others know the state of each service of the `hotswap up` that this process is."""
    with suppress(OSError):
        write_atomically(home / _SERVICES, json.dumps(redacted_values({"services": list(services)})) + "\n")


def running_services(home: Path) -> list[dict[str, Any]]:
    """The services of the `hotswap up` that runs in this home, each with its state; empty where none does."""
    return list(_read(home / _SERVICES).get("services", [])) if running(home) else []


def wait_while_starting(home: Path, service: str, seconds: float) -> bool:
    """
    Wait for a service of the `hotswap up` that runs in this home.

    Returns:
        Whether nothing has to be waited for any longer: it is ready, or no `hotswap up` with it runs here.
    """
    deadline = time.monotonic() + seconds
    while _starts(home, service):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _starts(home: Path, service: str) -> bool:
    states = {each["name"]: each["state"] for each in running_services(home)}
    return states.get(service, "ready") != "ready" or (not states and bool(running(home)))


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _described(home: Path, description: Path) -> str:
    try:
        facts = _read(description)
        addresses = ", ".join(f"{name} {address}" for name, address in facts["addresses"].items())
        who = f" as process {facts['pid']}: {addresses}"
    except (KeyError, AttributeError):
        who = ""
    return f"hotswap is up already in {home}{who}; nothing was changed, and `hotswap down` stops it"
