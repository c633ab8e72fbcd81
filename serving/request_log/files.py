"""
Writes records to TFRecord files that are rotated by size and age, and deletes the oldest.

What was written stays readable whatever happens to the process: each record carries its length and checksums, so only
the last one can be cut off. Only the owner can read the files.

TensorFlow's own writer lets go of Python's lock at every record, and the thread that answers requests then waits for it
again and again. So records are framed here, and many of them are written at once.

Source: https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from io import FileIO
from pathlib import Path

import google_crc32c
import grpc
import numpy as np

from serving.protocol.errors import GraphError
from serving.runtime.tf_session import read_records

log = logging.getLogger(__name__)

PREFIX, SUFFIX = "requests-", ".tfrecord"
_MASK_DELTA = np.uint32(0xA282EAD8)
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
        self._file: FileIO | None = None
        self._bytes = 0
        self._opened = 0.0

    def write(self, records: Sequence[bytes]) -> None:
        """
        Write records; those that do not fit into the file any more go to the next one.

        Raises:
            OSError: They cannot be written; what comes next goes to another file.
        """
        try:
            frames: list[bytes] = []
            size = 0
            for record, checksum in zip(records, _checksums(records), strict=True):
                if frames and self._bytes + size + len(record) + FRAME_BYTES > self.limits.file_bytes:
                    self._append(frames, size)
                    frames, size = [], 0
                frames += (_length(len(record)), record, checksum)
                size += len(record) + FRAME_BYTES
            if frames:
                self._append(frames, size)
        except Exception:
            with suppress(OSError):
                self.close()
            raise

    def close_old(self) -> None:
        """Close the file that is being written if it has reached its age."""
        if self._file is not None and time.monotonic() - self._opened >= self.limits.file_seconds:
            self.close()

    def close(self) -> None:
        """Close the file that is being written."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _append(self, frames: Sequence[bytes], size: int) -> None:
        self.close_old()
        if self._file is not None and self._bytes + size > self.limits.file_bytes:
            self.close()
        if self._file is None:
            self._file = self._opened_file(size)
        content = memoryview(b"".join(frames))
        while content:
            content = content[self._file.write(content) or 0 :]
        self._bytes += size

    def _opened_file(self, size: int) -> FileIO:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._make_room(max(size, self.limits.file_bytes))
        moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        path = self._directory / f"{PREFIX}{moment}-{os.getpid()}{SUFFIX}"
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o600)
        self._bytes, self._opened = 0, time.monotonic()
        return FileIO(descriptor, "w")

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


@lru_cache(1024)
def _length(size: int) -> bytes:
    """What stands before a record: its length with a checksum."""
    length = size.to_bytes(8, "little")
    (checksum,) = _checksums([length])
    return length + checksum


def _checksums(contents: Sequence[bytes]) -> list[bytes]:
    """The masked CRC-32C of each."""
    crcs = np.fromiter(map(google_crc32c.value, contents), np.uint32, len(contents))
    masked = (crcs >> 15 | crcs << 17) + _MASK_DELTA
    checksums: list[bytes] = masked.astype("<u4").view("V4").tolist()
    return checksums


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
