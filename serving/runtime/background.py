"""
Prepares versions in threads of a lower priority, so that those that answer requests are not held up.

TensorFlow prepares a graph in C++, for tens of milliseconds, without Python's lock. That is done by these
threads. The Python around it is not: on a busy machine a thread of low priority may be suspended for long, and if it
held the lock meanwhile, every request would wait for it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

NICENESS = 10
NICENESS_OF_SMALL = 15
"""for a version that takes so little to prepare that it does not wait for long on a busy machine either"""


class Native(Protocol):
    """Calls a function that is busy in C++, and waits for its result."""

    def __call__(self, function: Callable[..., T], *arguments: Any) -> T: ...


def at_once(function: Callable[..., T], *arguments: Any) -> T:
    """In the calling thread."""
    return function(*arguments)


class Background:
    """A few threads of a lower priority, where the system gives each thread a priority of its own."""

    def __init__(self, threads: int, niceness: int) -> None:
        self._pool = ThreadPoolExecutor(
            threads, thread_name_prefix="background", initializer=_lower_priority, initargs=(niceness,)
        )

    def __call__(self, function: Callable[..., T], *arguments: Any) -> T:
        """In one of these threads, while the calling one waits."""
        return self._pool.submit(function, *arguments).result()

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()


def _lower_priority(niceness: int) -> None:
    if sys.platform != "linux":
        return
    # What a limit or a sandbox of system calls forbids would break the pool, and with it every later load.
    with suppress(OSError):
        os.nice(niceness)
