"""
Keeps large requests off the event loop, so that others do not wait for them.

A large one is read and written in a thread. A huge one would hold Python's lock and leave the process with the memory
it took, so it is read in a process of its own.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from serving.protocol.errors import Exhausted

log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_INLINE_BYTES = 2**18
MAX_INLINE_PARSE_BYTES = 8 * 2**20
_AT_A_TIME = 2


class OffLoop:
    """The threads and processes for the large requests of one event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(_AT_A_TIME, "large-request")

    def run(self, function: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:
        """Run something in a thread."""
        return self._loop.run_in_executor(self._threads, function, *arguments)

    async def read(self, function: Callable[..., T], content: bytes, *arguments: Any) -> T:
        """Run ``function(content, *arguments)``: here, in a thread or in a process, by the size of the content."""
        if len(content) <= MAX_INLINE_BYTES:
            return function(content, *arguments)
        if len(content) <= MAX_INLINE_PARSE_BYTES:
            return await self.run(function, content, *arguments)
        return await self.run(run_in_process, function, content, *arguments)


def run_in_process(function: Callable[..., T], *arguments: Any) -> T:
    """
    Run something in a process of its own; in this one where no other can be started.

    Raises:
        Exhausted: There is not enough memory for it.
    """
    try:
        return _run_in_new_process(function, *arguments)
    except OSError as exc:
        log.warning("a huge request is read in a thread, as no process can be started: %s", exc)
        return function(*arguments)


def _run_in_new_process(function: Callable[..., T], *arguments: Any) -> T:
    context = multiprocessing.get_context("spawn")
    # Ctrl-C reaches all processes of a terminal; the server decides what becomes of the requests it has.
    with ProcessPoolExecutor(1, context, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool as exc:
            raise Exhausted("Reading the request took more memory than there is. Send fewer rows at a time.") from exc
