"""
The journal of a model: every change of what is live, with who made it, when and why.

One file a model, one JSON object a line. Each line carries the hash of the line before it, so that `Journal.read` finds
a line that was changed or removed later. Lines are appended with the model's lock held.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from serving.protocol.errors import RepositoryError
from serving.protocol.redaction import redacted_values
from serving.repository.names import validate_model_name

START = "0" * 64
"""the hash that the first line carries in place of a line before it"""
_NUMBERS = ("version", "previous")
_ENVELOPE = ("time", "who", "action", "before")


class BrokenJournal(RepositoryError):
    """The journal was changed after it was written."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that changed what is live."""

    time: str
    who: str
    action: str
    facts: Mapping[str, Any]
    hash: str

    @property
    def version(self) -> int | None:
        version = self.facts.get("version")
        return version if isinstance(version, int) else None


class Journal:
    """The journal of one model."""

    def __init__(self, models_repo: Path, model: str) -> None:
        self.path = models_repo.absolute() / ".journal" / f"{validate_model_name(model)}.jsonl"

    def read(self) -> list[Entry]:
        """
        All entries, oldest first.

        Raises:
            BrokenJournal: A line does not carry the hash of the line before it.
        """
        entries: list[Entry] = []
        for number, line in enumerate(self._whole_lines(), start=1):
            previous = entries[-1].hash if entries else START
            try:
                record = json.loads(line)
                claimed = record.pop("hash")
                if record["before"] != previous or claimed != _hash(record):
                    raise ValueError("hash differs")
                facts = {key: value for key, value in record.items() if key not in _ENVELOPE}
                entries.append(Entry(record["time"], record["who"], record["action"], facts, claimed))
            except (ValueError, KeyError, TypeError, AttributeError) as exc:
                hint = "put a copy of the file back, or move it away"
                raise BrokenJournal(f"Line {number} of {self.path} is not what was written: {hint}") from exc
        return entries

    def append(self, action: str, **facts: Any) -> None:
        """Add one entry, safely on disk before this returns."""
        entries = self.read()
        record = next_record(entries[-1].hash if entries else START, action, facts)
        try:
            self._append_line(json.dumps(record, ensure_ascii=False))
        except OSError as exc:
            raise RepositoryError(f"Cannot write the journal {self.path}: {os.strerror(exc.errno or 0)}") from exc

    def highest_version(self) -> int:
        """The highest version number that any entry mentions; 0 for none."""
        entries = self.read()
        numbers = [entry.facts.get(key) for entry in entries for key in _NUMBERS]
        numbers += [number for entry in entries for number in entry.facts.get("added", [])]
        return max((number for number in numbers if isinstance(number, int)), default=0)

    def _append_line(self, line: str) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            # A process that was killed in the middle of a line never finished the step that the line is about.
            file.truncate(sum(len(whole) + 1 for whole in self._whole_lines()))
            file.write(line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def _whole_lines(self) -> list[bytes]:
        try:
            return self.path.read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return []


def user() -> str:
    """Who this process belongs to, and where."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def next_record(before: str, action: str, facts: Mapping[str, Any], now: datetime | None = None) -> dict[str, Any]:
    """The line by this user that follows the one with hash `before`; facts that are None are left out."""
    record: dict[str, Any] = {
        "time": (now or datetime.now(UTC)).isoformat(timespec="milliseconds"),
        "who": user(),
        "action": action,
        **{key: redacted_values(value) for key, value in facts.items() if value is not None},
        "before": before,
    }
    return {**record, "hash": _hash(record)}


def _hash(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
