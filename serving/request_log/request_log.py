"""
Keeps a sample of requests and their answers, for whoever compares what comes in with the training data.

Nothing waits for it: an exchange is noted on the event loop, and written by a thread a moment later. What is more than
the thread can write, or than may wait, is dropped and counted.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import grpc

from serving.protocol.tensors import Array
from serving.request_log.columns import Columns
from serving.request_log.files import LogFiles
from serving.request_log.records import Exchange, Writing
from serving.request_log.sampling import Sampler
from serving.request_log.waiting import BATCH, Waiting
from serving.runtime.call import Call

log = logging.getLogger(__name__)

MAX_WAITING_BYTES = 32 * 2**20
_PAUSE_SECONDS = 0.25
_PAUSE_AFTER_FAILURE_SECONDS = 10.0
_OK, _DROPPED, _FAILED = (
    status.name for status in (grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INTERNAL)
)

CountLogged = Callable[[str, str, int], None]
"""Counts so many exchanges of a model under the name of a status."""


class RequestLog:
    """The log of one server; requests are noted by one thread alone."""

    def __init__(self, files: LogFiles, columns: Columns, rate_of: Callable[[str], float], count: CountLogged) -> None:
        self.draws = Sampler(rate_of).draws
        self._files = files
        self._writing = Writing(columns, rate_of)
        self._count = count
        self._waiting = Waiting(min(MAX_WAITING_BYTES, files.limits.file_bytes), groups=not columns)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="request-log", daemon=True)
        self._thread.start()

    def note_predict(
        self, call: Call, arrays: list[Array], done: Callable[[Any], None], result: list[Array] | Exception
    ) -> None:
        """Answer by `done`, then keep what was asked and answered."""
        done(result)
        if isinstance(result, Exception):
            return
        if not self._waiting.add_predict(call, arrays, result):
            self._count(call.servable.model, _DROPPED, 1)

    def note(self, exchange: Exchange) -> None:
        """Keep this exchange if there is room for it."""
        if not self._waiting.add(exchange):
            self._count(exchange.model, _DROPPED, 1)

    def close(self) -> None:
        """Write what waits, and end."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        pause = _PAUSE_SECONDS
        while not self._stopped.wait(pause):
            pause = self._write_waiting()
        self._write_waiting()
        self._attempt(self._files.close)

    def _write_waiting(self) -> float:
        """Write all that waits; how many seconds to wait for more."""
        while taken := self._waiting.take():
            is_written = self._write(taken)
            self._waiting.released(taken)
            if not is_written:
                return _PAUSE_AFTER_FAILURE_SECONDS
            if sum(each.count for each in taken) < BATCH:
                break  # the few that came meanwhile can wait
        self._attempt(self._files.close_old)
        return _PAUSE_SECONDS

    def _write(self, taken: Sequence[Exchange]) -> bool:
        self._writing.timestamp_seconds = int(time.time())
        counts: Counter[str] = Counter()
        records: list[bytes] = []
        for each in taken:
            made = self._records(each)
            counts[each.model] += len(made)
            records += made
        is_written = self._attempt(lambda: self._files.write(records))
        for model, count in counts.items():
            self._count(model, _OK if is_written else _FAILED, count)
        return is_written

    def _records(self, exchange: Exchange) -> list[bytes]:
        try:
            return exchange.records(self._writing)
        except Exception as exc:  # as of a tensor that cannot be sent; the others are kept
            log.error("request not logged model=%s: %s: %s", exchange.model, type(exc).__name__, exc)
            self._count(exchange.model, _FAILED, exchange.count)
            return []

    def _attempt(self, write: Callable[[], None]) -> bool:
        try:
            write()
        except Exception as exc:  # a full disk, or whatever else: the server goes on without its log
            log.error("request log not written: %s: %s", type(exc).__name__, exc)
            return False
        return True
