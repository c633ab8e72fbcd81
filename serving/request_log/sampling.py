"""
Decides which requests are kept, each by a draw of its own.

Many are drawn at once, so that a request costs no more than to look at the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain

import numpy as np

from serving.runtime.servable import Servable

DRAWN_AT_ONCE = 1000
"""After so many requests the rate may have changed."""


class Sampler:
    """Keeps each request with the rate of its model, whatever the ones before were."""

    def __init__(self, rate_of: Callable[[str], float]) -> None:
        self._rate_of = rate_of
        self._random = np.random.default_rng()

    def draws(self, servable: Servable) -> Iterator[int]:
        """For each of the next requests to a version 1 if it is kept, 0 if not; also its ``usage`` has them then."""
        model = servable.model  # not the version, which is freed when nothing needs it any more

        def draw() -> bytes:
            return (self._random.random(DRAWN_AT_ONCE) < self._rate_of(model)).tobytes()

        servable.usage.log_draws = chain.from_iterable(iter(draw, b""))
        return servable.usage.log_draws
