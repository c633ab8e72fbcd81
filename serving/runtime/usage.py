"""What a version has been used for."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence

BUCKETS_MICROSECONDS = [10 * 1.8**power for power in range(33)]


class Histogram:
    """Counts of values, most of them microseconds, in growing buckets."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float] = BUCKETS_MICROSECONDS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect.bisect_right(self.bounds, value)] += 1
        self.total += value


class Usage:
    """What one version has been used for."""

    __slots__ = ("errors", "latency", "log_draws", "requests")

    def __init__(self) -> None:
        self.requests = 0
        """that reached the graph"""
        self.errors = 0
        """of these, those that the graph refused"""
        self.latency = Histogram()
        """in the graph and waiting for it"""
        self.log_draws: Iterator[int] | None = None
        """for each of the next requests, whether the request log takes it"""
