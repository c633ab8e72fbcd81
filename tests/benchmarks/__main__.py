"""``make bench``: every number that the documentation names."""

from __future__ import annotations

from tests.benchmarks import first_impressions, train_overhead
from tests.benchmarks.report import show

if __name__ == "__main__":
    show([*train_overhead.measure(), *first_impressions.measure()])
