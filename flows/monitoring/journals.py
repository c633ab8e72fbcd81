"""What the journals say, for the metrics: each is read again only when it has changed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from flows.journal import Entry, Journal
from flows.promotion.history import replay
from flows.promotion.labels import STABLE
from serving.protocol.errors import RepositoryError


@dataclass(frozen=True, slots=True)
class Told:
    """What the journal of one model says."""

    actions: Counter[str]
    labels: dict[str, int]
    published: int
    stable_since: float | None
    """when the label ``stable`` moved last, in seconds since the epoch"""


class Journals:
    """The journals of one repository."""

    def __init__(self, models_repo: Path) -> None:
        self._models_repo = models_repo.absolute()
        self._known: dict[str, tuple[tuple[int, int], Told]] = {}

    def read(self) -> dict[str, Told]:
        """By model; one that cannot be read is left out, as `hotswap doctor` reports it."""
        found = {}
        for path in sorted((self._models_repo / ".journal").glob("*.jsonl")):
            try:
                found[path.stem] = self._read(path)
            except (RepositoryError, OSError):
                self._known.pop(path.stem, None)
        return found

    def _read(self, path: Path) -> Told:
        status = path.stat()
        stamp = (status.st_mtime_ns, status.st_size)
        known = self._known.get(path.stem)
        if known is None or known[0] != stamp:
            entries = Journal(self._models_repo, path.stem).read()
            known = self._known[path.stem] = (stamp, _told(entries))
        return known[1]


def _told(entries: list[Entry]) -> Told:
    live = replay(entries)
    moves = [each.time for each in entries if each.facts.get("label") == STABLE and each.action != "unlabel"]
    return Told(
        actions=Counter(each.action for each in entries),
        labels=dict(live.labels),
        published=len(live.published),
        stable_since=datetime.fromisoformat(moves[-1]).timestamp() if moves else None,
    )
