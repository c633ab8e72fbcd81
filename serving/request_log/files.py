"""
Writes records to TFRecord files that are rotated by size and age, and deletes the oldest.

What was flushed stays readable whatever happens to the process: each record carries its length and checksums, so only
the last one can be cut off. Only the owner can read the files.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc

from serving.protocol.errors import GraphError
from serving.runtime.tf_session import RecordWriter, read_records

log = logging.getLogger(__name__)

PREFIX, SUFFIX = "requests-", ".tfrecord"
FRAME_BYTES = 16
"""around each record: its length and two checksums"""


@dataclass(frozen=True, slots=True)
class Limits:
    """How large and old a file becomes, and how large all of them together."""

    file_bytes: int
    file_seconds: float
    total_bytes: int


class LogFiles:
    """The files in one directory; the newest is being written."""

    def __init__(self, directory: Path, limits: Limits) -> None:
        self.limits = limits
        self._directory = directory
        self._path: Path | None = None
        self._writer: RecordWriter | None = None
        self._bytes = 0
        self._opened = 0.0

    def write(self, records: Iterable[bytes]) -> None:
        """
        Write and flush records; one that is larger than a file may be has a file of its own.

        Raises:
            OSError, GraphError: They cannot be written; what comes next goes to another file.
        """
        try:
            for record in records:
                size = len(record) + FRAME_BYTES
                self._file_for(size).write(record)
                self._bytes += size
            if self._writer is not None:
                self._writer.flush()
        except Exception:
            self._abandon()
            raise

    def close_old(self) -> None:
        """Close the file that is being written if it has reached its age."""
        if self._writer is not None and time.monotonic() - self._opened >= self.limits.file_seconds:
            self.close()

    def close(self) -> None:
        """Close the file that is being written."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def _file_for(self, size: int) -> RecordWriter:
        self.close_old()
        if self._writer is not None and self._bytes + size > self.limits.file_bytes:
            self.close()
        if self._writer is None:
            self._writer = self._opened_file(size)
        return self._writer

    def _opened_file(self, size: int) -> RecordWriter:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._make_room(max(size, self.limits.file_bytes))
        moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        path = self._directory / f"{PREFIX}{moment}-{os.getpid()}{SUFFIX}"
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        self._path, self._bytes, self._opened = path, 0, time.monotonic()
        return RecordWriter(path)

    def _abandon(self) -> None:
        with suppress(Exception):
            self.close()
        if self._path is not None and self._path.exists() and not self._path.stat().st_size:
            self._path.unlink()

    def _make_room(self, size: int) -> None:
        """Delete the oldest files until another of this size fits."""
        sizes = {}
        for path in log_files(self._directory):
            with suppress(FileNotFoundError):  # deleted by another server
                sizes[path] = path.stat().st_size
        excess = sum(sizes.values()) + size - self.limits.total_bytes
        for path, old_size in sizes.items():
            if excess <= 0:
                break
            path.unlink(missing_ok=True)
            excess -= old_size


def log_files(directory: Path) -> list[Path]:
    """The files of a log, the oldest first."""
    return sorted(directory.glob(f"{PREFIX}*{SUFFIX}"))


def whole_records(path: Path) -> Iterator[bytes]:
    """The records of a file up to the first that is damaged or, as after a crash, cut off."""
    try:
        yield from read_records(path)
    except GraphError as exc:
        if exc.code is not grpc.StatusCode.DATA_LOSS:
            raise
        log.info("the rest of a request log cannot be read path=%s: %s", path, exc.message)
