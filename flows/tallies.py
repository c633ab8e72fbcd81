"""
What is counted over all processes of a home, for the metrics: trainings, verdicts, reconciles, events.

One small JSON file, changed under a lock. Counting is beside the point of whoever counts, so it never fails: what
cannot be counted is logged.
"""

from __future__ import annotations

import json
import logging
from bisect import bisect_left
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from serving.repository.files import write_atomically

log = logging.getLogger(__name__)

EVENTS, RECONCILES = "events", "reconciles"
_LOCK_SECONDS = 5.0

Tallies = dict[str, dict[str, Any]]
"""by name and labels, which are a JSON list: a number, or ``{"counts": […], "sum": …}`` with a count for each bucket"""


class Tally:
    """The tallies of one home."""

    def __init__(self, home: Path) -> None:
        self._path = home.absolute() / "monitoring" / "tallies.json"

    def read(self) -> Tallies:
        """All of them; nothing where nothing was counted yet."""
        try:
            found = json.loads(self._path.read_text("utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as exc:
            log.warning("tallies not read, counting anew file=%s error=%s", self._path, exc)
            return {}
        return found if isinstance(found, dict) else {}

    def count(self, name: str, *labels: str) -> None:
        """Add one."""
        self._change(name, labels, lambda before: (before or 0) + 1)

    def note(self, name: str, value: Any, *labels: str) -> None:
        """Keep a value in place of the one before."""
        self._change(name, labels, lambda before: value)

    def observe(self, name: str, value: float, bounds: Sequence[float], *labels: str) -> None:
        """Add a value to a histogram whose buckets have these upper bounds, and one more without."""

        def added(before: Any) -> Any:
            histogram = before or {"counts": [0] * (len(bounds) + 1), "sum": 0.0}
            histogram["counts"][bisect_left(bounds, value)] += 1
            return {**histogram, "sum": histogram["sum"] + value}

        self._change(name, labels, added)

    def _change(self, name: str, labels: Sequence[str], changed: Callable[[Any], Any]) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self._path.with_suffix(".lock"), timeout=_LOCK_SECONDS):
                tallies = self.read()
                values, key = tallies.setdefault(name, {}), json.dumps(labels)
                values[key] = changed(values.get(key))
                write_atomically(self._path, json.dumps(tallies))
        except (OSError, Timeout) as exc:
            log.warning("not counted file=%s error=%s", self._path, exc)
