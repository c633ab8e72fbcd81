"""One thing that has happened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """What has happened."""

    PROMOTED = "promoted"
    """a version got its label, after it was verified"""
    REJECTED = "rejected"
    """gate or sandbox did not let a candidate pass"""
    UNDONE = "undone"
    """a version did not prove itself, and was taken out again or never got its label"""
    ROLLED_BACK = "rolled-back"
    """label ``stable`` went back to an earlier version"""
    RECONCILED = "reconciled"
    """registry, directory, journal and servers did not agree, and were repaired"""
    DRIFTED = "drifted"
    """what comes in no longer looks like the training data"""
    DOWN = "down"
    """a service does not run or does not answer"""
    APPROVAL_WANTED = "approval-wanted"
    """a candidate waits for somebody who approves it"""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that has happened, and when."""

    kind: Kind
    model: str
    """the model's name; of a service that is down, the service's"""
    version: int | None = None
    why: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    """what else is known, as ``json`` can write it"""
    time: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="milliseconds"))
    """ISO 8601, UTC"""
