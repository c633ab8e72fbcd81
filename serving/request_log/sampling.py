"""
Decides which requests are kept.

How many pass until the next that is kept is drawn when the one before was, so that the others cost a subtraction.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from serving.runtime.servable import Servable

MAX_DRAWN = 1000
"""After so many requests it is drawn again, as the rate may have changed."""


class Sampler:
    """Takes each request with the rate of its model, whatever the ones before were."""

    def __init__(self, rate_of: Callable[[str], float]) -> None:
        self._rate_of = rate_of

    def takes(self, servable: Servable) -> bool:
        """Whether the next request to this version is kept."""
        usage = servable.usage
        while True:
            if usage.log_passes:
                usage.log_passes -= 1
                return False
            if usage.log_takes_next:
                usage.log_takes_next = False
                return True
            gap = _drawn_gap(self._rate_of(servable.model))
            usage.log_passes, usage.log_takes_next = int(min(gap, MAX_DRAWN)), gap < MAX_DRAWN


def _drawn_gap(rate: float) -> float:
    """How many requests pass until one is kept, each of them by a throw of its own."""
    if not 0 < rate < 1:
        return math.inf if rate <= 0 else 0.0
    return math.log(1 - random.random()) // math.log1p(-rate)
