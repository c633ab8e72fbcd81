"""
Lets only one `hotswap up` run in a home.

It holds a lock on a file, which the kernel frees with the process; a process id would not do, as it is given to another
process later. The file beside the lock describes the running `up`, for messages only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from serving.protocol.errors import HotswapError
from serving.protocol.redaction import redacted_values
from serving.repository.files import write_atomically

_LOCK, _DESCRIPTION = "up.lock", "up.json"


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
        lock.acquire(timeout=0)
    except Timeout as exc:
        raise AlreadyUp(_described(home, description)) from exc
    try:
        was_killed = description.exists()
        with suppress(OSError):
            write_atomically(description, json.dumps(redacted_values({"pid": os.getpid(), **facts})) + "\n")
        yield was_killed
    finally:
        with suppress(OSError):
            description.unlink()
        lock.release()


def running_addresses(home: Path) -> dict[str, str]:
    """The addresses by service of the `hotswap up` that runs in this home; empty where none does."""
    try:
        facts = json.loads((home / _DESCRIPTION).read_text("utf-8"))
        return dict(facts["addresses"]) if psutil.pid_exists(facts["pid"]) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _described(home: Path, description: Path) -> str:
    try:
        facts = json.loads(description.read_text("utf-8"))
        addresses = ", ".join(f"{name} {address}" for name, address in facts["addresses"].items())
        who = f" as process {facts['pid']}: {addresses}"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        who = ""
    return f"hotswap is up already in {home}{who}; nothing was changed, and Ctrl-C in its terminal stops it"
