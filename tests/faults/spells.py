"""Requests, and from when until when something held for a version that may have answered them."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(slots=True)
class Spell:
    """From when until when something held for a version; seconds since 1970."""

    version: int
    since: float
    until: float = math.inf

    def touches(self, request: Request) -> bool:
        """Did it hold at some moment of the request?"""
        return self.since <= request.ended and request.began <= self.until

    def covers(self, request: Request) -> bool:
        """Did it hold at every moment of the request?"""
        return self.since <= request.began and request.ended <= self.until


@dataclass(frozen=True, slots=True)
class Request:
    """One request of `tests.faults.asker`."""

    label: str
    began: float
    ended: float
    answer: int | str
