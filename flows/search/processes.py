"""The trainings of candidates, each in a process of its own, as one process trains one model at a time with a seed."""

from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from flows.search.candidate import Measured, Order
from serving.protocol.errors import HotswapError


class CandidateFailed(HotswapError):
    """A candidate could not be trained."""


class Cancelled(HotswapError):
    """The training of a candidate was ended, as that of all others."""


def at_once() -> int:
    """How many candidates are trained beside each other: one a core."""
    return os.cpu_count() or 1


class Nursery:
    """Trains candidates while the block lasts; its end ends all of them."""

    def __init__(self, log: Path) -> None:
        """`log` is for what the code of recipes prints."""
        self._log = log
        self._running: set[Connection[Any, Any]] = set()
        self._lock = threading.Lock()
        self.is_closed = False

    def __enter__(self) -> Self:
        self._asked, given = socket.socketpair()
        with given, self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "flows.search.nursery", str(given.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[given.fileno()],
                start_new_session=True,  # Ctrl-C is for the one who waits
            )
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._lock:
            self.is_closed = True
            self._asked.close()
            for each in self._running:
                # Closing it would not wake up the thread that reads from it.
                with socket.socket(fileno=os.dup(each.fileno())) as end:
                    end.shutdown(socket.SHUT_RDWR)
        self._process.kill()  # it may still import, and has nothing to lose
        self._process.wait()

    def train(self, order: Order, progress: Callable[[int, Mapping[str, float]], None]) -> Measured:
        """
        Train one candidate; `progress` is told of every epoch. May be called by several threads.

        Raises:
            CandidateFailed: It could not be trained; the message says why.
            Cancelled: The block has ended meanwhile.
        """
        with self._connection() as connection:
            try:
                connection.send(order)
                while True:
                    match connection.recv():
                        case ("done", Measured() as measured):
                            return measured
                        case ("failed", why):
                            raise CandidateFailed(why)
                        case (int(epoch), metrics):
                            progress(epoch, metrics)
            except (EOFError, OSError) as exc:
                if self.is_closed:
                    raise Cancelled("the training was ended") from exc
                raise CandidateFailed(f"its process ended, perhaps for lack of memory: see {self._log}") from exc
            finally:
                with self._lock:
                    self._running.discard(connection)

    def _connection(self) -> Connection[Any, Any]:
        ours, theirs = multiprocessing.Pipe()
        with self._lock, theirs:
            if self.is_closed:
                raise Cancelled("the training was ended")
            self._running.add(ours)
            socket.send_fds(self._asked, [b"."], [theirs.fileno()])
        return ours
