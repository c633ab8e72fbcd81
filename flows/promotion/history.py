"""The history of a model: what its journal says was live, now and at any time before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import takewhile
from typing import Any

from flows.journal import Entry
from flows.promotion.deployment import Deployment
from flows.promotion.labels import STABLE
from serving.protocol.errors import InvalidRequest, VersionNotFound


@dataclass(slots=True)
class Live:
    """The versions that were published and the labels they carried, as far as the journal knows."""

    published: set[int] = field(default_factory=set)
    labels: dict[str, int] = field(default_factory=dict)
    _before: dict[str, int] = field(default_factory=dict)

    def apply(self, entry: Entry) -> None:
        """Take one entry of the journal into account."""
        if entry.action == "reconcile":
            self.published.difference_update(entry.facts.get("removed", []))
            self.published.update(entry.facts.get("added", []))
            self.labels = dict(entry.facts.get("labels", self.labels))
        elif entry.action == "remove":
            self.published.clear()
            self.labels.clear()
        elif entry.version is not None:
            self._apply_to(entry.version, entry)

    def _apply_to(self, version: int, entry: Entry) -> None:
        match entry.action:
            case "publish" | "restore":
                self.published.add(version)
            case "promote" | "label" | "rollback":
                self._move_label(version, entry.facts)
            case "unlabel":
                self.labels.pop(entry.facts["label"], None)
            case "undo":
                self._take_out(version, put_back=True)
            case "retire":
                self._take_out(version)

    def _move_label(self, version: int, facts: Mapping[str, Any]) -> None:
        self.published.add(version)
        self._point(facts.get("label") or STABLE, version)
        for label in facts.get("unlabelled", []):
            if self.labels.get(label) == version:
                del self.labels[label]
        for retired in facts.get("retired", []):
            self._take_out(retired)

    def _point(self, label: str, version: int) -> None:
        if label in self.labels:
            self._before[label] = self.labels[label]
        self.labels[label] = version

    def _take_out(self, version: int, put_back: bool = False) -> None:
        """Its labels go too, or with `put_back` to where they were before."""
        self.published.discard(version)
        for label in [label for label, at in self.labels.items() if at == version]:
            before = self._before.get(label)
            if put_back and before in self.published:
                self.labels[label] = before
            else:
                del self.labels[label]


@dataclass(frozen=True, slots=True)
class Moment:
    """What was live at one time."""

    model: str
    at: str
    live: int | None
    """the version that label ``stable`` pointed to"""
    published: tuple[int, ...]
    labels: Mapping[str, int]
    since: str | None
    """when the last change before that time was made"""
    run_id: str | None
    digest: str | None


def replay(entries: Iterable[Entry]) -> Live:
    """What the journal says is live after its last entry."""
    live = Live()
    for entry in entries:
        live.apply(entry)
    return live


def stable_once(entries: Iterable[Entry]) -> set[int]:
    """The versions that label ``stable`` has pointed to, but for those that were undone or rolled back from."""
    found: set[int] = set()
    for entry in entries:
        facts, version = entry.facts, entry.version
        if entry.action == "reconcile":
            found.update(at for label, at in facts.get("labels", {}).items() if label == STABLE)
        elif entry.action in ("promote", "label", "rollback") and (facts.get("label") or STABLE) == STABLE:
            found.update(() if version is None else (version,))
            found.difference_update(facts.get("retired", []))
        elif entry.action == "undo":
            found.discard(version or 0)
    return found


def history(deployment: Deployment) -> list[Entry]:
    """
    Every entry of the journal, newest first.

    Raises:
        VersionNotFound: There is no such model.
        BrokenJournal: A line was changed.
    """
    entries = deployment.journal.read()
    if not entries and deployment.model not in (models := deployment.repository.models()):
        raise VersionNotFound(f"There is no model {deployment.model!r}; known are: {', '.join(models) or 'none yet'}")
    return entries[::-1]


def live_at(deployment: Deployment, at: str) -> Moment:
    """
    What was live at a time.

    Args:
        deployment: Of which model.
        at: In ISO 8601; local time if it has no offset.

    Raises:
        InvalidRequest: `at` is no time.
    """
    moment = parse_time(at)
    # Every entry before the last one of that time counts, whatever time it has: a clock may be set back.
    later = takewhile(lambda entry: datetime.fromisoformat(entry.time) > moment, entries := history(deployment))
    until = entries[sum(1 for _ in later) :][::-1]
    live = replay(until)
    version = live.labels.get(STABLE)
    about = [entry.facts for entry in until if entry.version == version and "digest" in entry.facts]
    facts: Mapping[str, Any] = about[-1] if about else {}
    return Moment(
        deployment.model,
        moment.isoformat(timespec="seconds"),
        version,
        tuple(sorted(live.published)),
        live.labels,
        until[-1].time if until else None,
        facts.get("run_id"),
        facts.get("digest"),
    )


def parse_time(text: str) -> datetime:
    """
    A time with an offset.

    Raises:
        InvalidRequest: `text` is no time.
    """
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError) as exc:
        raise InvalidRequest(f"{text!r} is no time: write 2026-11-22T10:00, or 2026-11-22T10:00+01:00") from exc
