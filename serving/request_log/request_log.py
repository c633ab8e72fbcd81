"""
Keeps a sample of requests and their answers, for whoever compares what comes in with the training data.

Nothing waits for it: an exchange is noted on the event loop, and written by a thread a moment later. What is more than
the thread can write, or than may wait, is dropped and counted.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import grpc

from serving.protocol.tensors import Array
from serving.request_log.columns import Columns
from serving.request_log.files import LogFiles
from serving.request_log.records import Exchange, PredictExchange, Writing
from serving.request_log.sampling import Sampler
from serving.runtime.call import Call

log = logging.getLogger(__name__)

MAX_WAITING = 8192
MAX_WAITING_BYTES = 32 * 2**20
_BATCH = 256
_PAUSE_SECONDS = 0.1
_PAUSE_AFTER_FAILURE_SECONDS = 10.0
_OK, _DROPPED, _FAILED = (
    status.name for status in (grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INTERNAL)
)

CountLogged = Callable[[str, str, int], None]
"""Counts so many exchanges of a model under the name of a status."""


class RequestLog:
    """The log of one server; requests are noted by one thread alone."""

    def __init__(self, files: LogFiles, columns: Columns, rate_of: Callable[[str], float], count: CountLogged) -> None:
        self.takes = Sampler(rate_of).takes
        """whether the next request to a version is one to keep"""
        self._files = files
        self._writing = Writing(columns, rate_of)
        self._count = count
        self._max_waiting_bytes = min(MAX_WAITING_BYTES, files.limits.file_bytes)
        self._waiting: deque[tuple[str, Exchange | bytes, int]] = deque()
        """model, exchange or what is written of it, and about how much memory it takes"""
        self._noted_bytes = 0
        self._taken_bytes = 0
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
        record = self._writing.predicts.quick_record(call, [*arrays, *result], int(time.time()))
        if record is None:
            self.note(PredictExchange(call, arrays, result))
        else:
            self._keep(call.servable.model, record, len(record))

    def note(self, exchange: Exchange) -> None:
        """Keep this exchange if there is room for it."""
        self._keep(exchange.model, exchange, exchange.size_bytes)

    def _keep(self, model: str, exchange: Exchange | bytes, size: int) -> None:
        waiting_bytes = self._noted_bytes - self._taken_bytes + size
        if len(self._waiting) >= MAX_WAITING or waiting_bytes > self._max_waiting_bytes:
            self._count(model, _DROPPED, 1)
            return
        self._noted_bytes += size
        self._waiting.append((model, exchange, size))

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
        while batch := self._next_batch():
            if not self._write(batch):
                return _PAUSE_AFTER_FAILURE_SECONDS
        self._attempt(self._files.close_old)
        return _PAUSE_SECONDS

    def _next_batch(self) -> list[tuple[str, Exchange | bytes]]:
        batch: list[tuple[str, Exchange | bytes]] = []
        while self._waiting and len(batch) < _BATCH:
            model, exchange, size = self._waiting.popleft()
            batch.append((model, exchange))
            self._taken_bytes += size
        return batch

    def _write(self, batch: list[tuple[str, Exchange | bytes]]) -> bool:
        self._writing.timestamp_seconds = int(time.time())
        records = [(model, record) for model, each in batch if (record := self._record(model, each)) is not None]
        is_written = self._attempt(lambda: self._files.write(record for _, record in records))
        for model, count in Counter(model for model, _ in records).items():
            self._count(model, _OK if is_written else _FAILED, count)
        return is_written

    def _record(self, model: str, exchange: Exchange | bytes) -> bytes | None:
        if isinstance(exchange, bytes):
            return exchange
        try:
            return exchange.record(self._writing)
        except Exception as exc:  # as of a tensor that cannot be sent; the others are kept
            log.error("request not logged model=%s: %s: %s", model, type(exc).__name__, exc)
            self._count(model, _FAILED, 1)
            return None

    def _attempt(self, write: Callable[[], None]) -> bool:
        try:
            write()
        except Exception as exc:  # a full disk, or whatever else: the server goes on without its log
            log.error("request log not written waiting=%d: %s: %s", len(self._waiting), type(exc).__name__, exc)
            return False
        return True
