"""
The queue of events that have not been delivered yet: one file an event, in ``<home>/events``.

A file appears by one rename, so whoever delivers finds it whole, after a crash too. Nobody waits for a delivery: an
event is written down, which takes milliseconds, and what cannot be written is only logged.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

from flows.events.event import Event, Kind
from flows.settings import Settings
from serving.protocol.redaction import redacted_values
from serving.repository.files import write_atomically

log = logging.getLogger(__name__)

MAX_WAITING = 1000
"""so many events wait at most; the oldest make room"""


@dataclass(frozen=True, slots=True)
class Waiting:
    """An event that waits, and its file."""

    path: Path
    event: Event

    @property
    def id(self) -> str:
        """A UUID, the same however often it is delivered."""
        return self.path.stem.partition(".")[2]

    def done(self) -> None:
        self.path.unlink(missing_ok=True)


def tell(settings: Settings, event: Event) -> None:
    """Let everybody know who wants to: put `event` into the queue. It never fails and never waits for a delivery."""
    log.info("event kind=%s model=%s version=%s", event.kind, event.model, event.version)
    try:
        directory = _directory(settings)
        text = json.dumps(redacted_values(asdict(event)), ensure_ascii=False, default=str)
        write_atomically(directory / f"{time.time_ns():020d}.{uuid4()}.json", text)
        _make_room(directory)
    except (OSError, TypeError, ValueError) as exc:
        log.warning("event not told kind=%s model=%s error=%s", event.kind, event.model, exc)


def waiting(settings: Settings) -> Iterator[Waiting]:
    """The events in the queue, oldest first; a file that is none is set aside."""
    for path in _files(_directory(settings)):
        try:
            fields = json.loads(path.read_text("utf-8"))
            yield Waiting(path, Event(**{**fields, "kind": Kind(fields["kind"])}))
        except FileNotFoundError:
            continue
        except (ValueError, TypeError, KeyError) as exc:
            log.warning("not an event, set aside file=%s error=%s", path, exc)
            with suppress(OSError):
                path.rename(path.with_suffix(".unreadable"))


def _make_room(directory: Path) -> None:
    for path in _files(directory)[:-MAX_WAITING]:
        log.warning("event dropped, as more than %d wait: %s", MAX_WAITING, path.name)
        path.unlink(missing_ok=True)


def _files(directory: Path) -> list[Path]:
    return sorted(directory.glob("[0-9]*.json"))


def _directory(settings: Settings) -> Path:
    return settings.home.absolute() / "events"
