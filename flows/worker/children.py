"""
The processes of the worker: one that waits for the next command, and those that carry one out.

They are forked from a process that has everything imported and runs nothing, so each begins at once, with the user's
code and the memory of a new process.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from flows.worker import child

log = logging.getLogger(__name__)

_FORKS = multiprocessing.get_context("forkserver")


@dataclass
class Child:
    """One process."""

    process: BaseProcess
    told: Connection
    """what it says: that it has begun, then the id of its flow run"""
    has_begun: bool = False
    has_rehearsed: bool = False
    flow_run: str | None = None
    interrupted: bool = False

    def listen(self) -> None:
        """Take in what it has said."""
        with suppress(EOFError, OSError):
            while self.told.poll():
                said = self.told.recv()
                self.has_begun = True
                self.flow_run = said or self.flow_run

    def rehearse(self) -> None:
        """Let it use the time, once."""
        if not self.has_rehearsed:
            self.has_rehearsed = True
            with suppress(OSError):
                self.told.send("")

    def interrupt(self) -> None:
        """Ctrl-C, once."""
        if not self.interrupted and self.process.pid is not None:
            self.interrupted = True
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGINT)


class Children:
    """Keeps one process that waits, beside those that work."""

    def __init__(self, listening: socket.socket, api_url: str) -> None:
        _FORKS.set_forkserver_preload(["flows.worker.preloaded"])
        self._listening = listening
        self._api_url = api_url
        self._all: list[Child] = []

    def __iter__(self) -> Iterator[Child]:
        return iter(self._all)

    def keep_one_waiting(self) -> None:
        """Start another one if each has something to do."""
        for each in self._all:
            each.listen()
        if all(each.has_begun for each in self._all):
            self._start()
        elif len(self._all) == 1:
            self._all[0].rehearse()

    def wait(self, seconds: float) -> None:
        """Return when one of them has begun or ended, at the latest after `seconds`."""
        waiting = [each.told for each in self._all if not each.told.closed and not each.flow_run]
        wait([*waiting, *(each.process.sentinel for each in self._all)], seconds)

    def ended(self) -> list[Child]:
        """Those that have ended since it was asked last."""
        ended = [each for each in self._all if each.process.exitcode is not None]
        for each in ended:
            each.listen()
            each.told.close()
            each.process.join()
            self._all.remove(each)
        return ended

    def end(self, seconds: float) -> list[Child]:
        """Interrupt those that work, and return them once all have ended or time is up."""
        deadline = time.monotonic() + seconds
        for each in self._all:
            each.listen()
        begun = [each for each in self._all if each.has_begun]
        for each in begun:
            each.interrupt()
        for each in begun:
            each.process.join(max(0.0, deadline - time.monotonic()))
            each.listen()
        return begun

    def _start(self) -> None:
        told, telling = _FORKS.Pipe()
        process = _FORKS.Process(target=child.run, args=(self._listening, telling, self._api_url), daemon=True)
        process.start()
        telling.close()
        self._all.append(Child(process, told))
