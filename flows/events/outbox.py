"""
The queues of events that have not been delivered yet: one file an event, in ``<home>/events/<channel>``.

A file appears by one rename, so whoever delivers finds it whole, after a crash too. Nobody waits for a delivery: an
event is written down, which takes milliseconds, and what cannot be written is only logged.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from uuid import uuid4

from flows.events.event import Event, Kind
from flows.settings import Settings
from flows.tallies import EVENTS, Tally
from serving.protocol.redaction import redacted_values
from serving.repository.files import write_atomically

log = logging.getLogger(__name__)

MAX_WAITING = 1000
"""so many events wait in a queue at most; the oldest make room"""
MAX_AGE_SECONDS = 24 * 3600.0
"""what could not be delivered for so long is news no more"""


class Channel(StrEnum):
    """Where events go; each has a queue of its own."""

    PREFECT = "prefect"
    NOTIFY = "notify"


@dataclass(frozen=True, slots=True)
class Waiting:
    """An event that waits, and its file."""

    path: Path
    event: Event
    delivered: frozenset[str] = frozenset()
    """the receivers that have it"""

    @property
    def id(self) -> str:
        """A UUID, the same however often it is delivered."""
        return self.path.stem.partition(".")[2]

    def delivered_to(self, receiver: str) -> Waiting:
        """Keep that one receiver has it; the others still wait."""
        waiting = replace(self, delivered=self.delivered | {receiver})
        write_atomically(self.path, waiting.text)
        return waiting

    def done(self) -> None:
        self.path.unlink(missing_ok=True)

    @property
    def text(self) -> str:
        fields = {**asdict(self.event), "delivered": sorted(self.delivered)}
        return json.dumps(redacted_values(fields), ensure_ascii=False, default=str)


def tell(settings: Settings, event: Event) -> None:
    """Let everybody know who wants to: put `event` into the queues. It never fails and never waits for a delivery."""
    log.debug("event kind=%s model=%s version=%s", event.kind, event.model, event.version)
    try:
        name = f"{time.time_ns():020d}.{uuid4()}.json"
        for channel in Channel:
            directory = queue_directory(settings, channel)
            write_atomically(directory / name, Waiting(directory / name, event).text)
            _make_room(directory)
        Tally(settings.home).count(EVENTS, event.kind)
    except (OSError, TypeError, ValueError) as exc:
        log.warning("event not told kind=%s model=%s error=%s", event.kind, event.model, exc)


def waiting(settings: Settings, channel: Channel) -> Iterator[Waiting]:
    """The events in a queue, oldest first; a file that is none is set aside, and one that is too old removed."""
    directory = queue_directory(settings, channel)
    _make_room(directory)
    for path in files(directory):
        try:
            fields = json.loads(path.read_text("utf-8"))
            delivered = frozenset(fields.pop("delivered"))
            yield Waiting(path, Event(**{**fields, "kind": Kind(fields["kind"])}), delivered)
        except FileNotFoundError:
            continue
        except (ValueError, TypeError, KeyError) as exc:
            log.warning("not an event, set aside file=%s error=%s", path, exc)
            with suppress(OSError):
                path.rename(path.with_suffix(".unreadable"))


def queue_directory(settings: Settings, channel: Channel) -> Path:
    """Where the events of a channel wait."""
    return settings.home.absolute() / "events" / channel


def files(directory: Path) -> list[Path]:
    """The events of a queue, oldest first."""
    return sorted(directory.glob("[0-9]*.json"))


def _make_room(directory: Path) -> None:
    oldest = f"{time.time_ns() - int(MAX_AGE_SECONDS * 1e9):020d}"
    found = files(directory)
    for path in found:
        if path.name < oldest or path in found[:-MAX_WAITING]:
            log.warning("event dropped, as it has waited too long or too many wait: %s", path)
            path.unlink(missing_ok=True)
