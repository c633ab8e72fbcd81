"""
Prepares versions in threads of a lower priority, so that those that answer requests are not held up.

TensorFlow prepares a graph in C++, for tens of milliseconds, without Python's lock. That is done by these
threads. The Python around it is not: on a busy machine a thread of low priority may be suspended for long, and if it
held the lock meanwhile, every request would wait for it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

NICENESS = 19
"""of the thread that prepares a version at first: what answers hardly notices it"""
LATER_NICENESS = 10
PATIENCE_SECONDS = 1.0
"""after so long the rest of a version is prepared with `LATER_NICENESS`, as it would wait for ever on a busy machine"""


class Native(Protocol):
    """Calls a function that is busy in C++, and waits for its result."""

    def __call__(self, function: Callable[..., T], *arguments: Any) -> T: ...


def at_once(function: Callable[..., T], *arguments: Any) -> T:
    """In the calling thread."""
    return function(*arguments)


class Background:
    """A few threads of lower priorities, where the system gives each thread a priority of its own."""

    def __init__(self, threads: int) -> None:
        self._first, self._later = (
            ThreadPoolExecutor(threads, f"background-{niceness}", partial(_lower_priority, niceness))
            for niceness in (NICENESS, LATER_NICENESS)
        )

    def for_version(self) -> Native:
        """Calls functions for one version in these threads, while the calling one waits; its time begins now."""
        patient_until = time.monotonic() + PATIENCE_SECONDS

        def call(function: Callable[..., T], *arguments: Any) -> T:
            pool = self._first if time.monotonic() < patient_until else self._later
            return pool.submit(function, *arguments).result()

        return call

    def close(self) -> None:
        """End the threads."""
        self._first.shutdown()
        self._later.shutdown()


def _lower_priority(niceness: int) -> None:
    if sys.platform != "linux":
        return
    # What a limit or a sandbox of system calls forbids would break the pool, and with it every later load.
    with suppress(OSError):
        os.nice(niceness)
