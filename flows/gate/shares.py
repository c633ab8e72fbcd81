"""
Bounds of the difference between two shares of the same rows, such as the accuracies of two models.

Both models answered the same rows, so only rows that one has right and the other wrong tell them apart. The bounds are
those of a paired bootstrap. Resampled rows of a classifier are draws from a multinomial with three cells (only the
candidate right, only the champion right, both alike), whose distribution is known: it is computed instead of drawn,
which is the bootstrap with infinitely many resamples. The cells are those that fit the rows best *under the hypothesis*
that the difference is exactly d; a bound is the d that is just rejected. A percentile bootstrap, which resamples the
cells as observed, finds far too little variation where few rows differ.

Sources:
    Tango (1998), Statistics in Medicine 17, 891-908: the cells under the hypothesis.
    Carpenter (1999), Journal of the Royal Statistical Society B 61, 159-172: bounds by inverting a bootstrap test.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtr, bdtrc, ndtri

_STEPS = 24
_TAIL_DEVIATIONS = 10  # what lies beyond has a probability below 1e-20
_MAX_ROWS = 10**9


@dataclass(frozen=True, slots=True)
class ShareDifferences:
    """How many of the rows only the candidate has right (`won`), and how many only the champion (`lost`)."""

    rows: int
    won: int
    lost: int

    @property
    def mean(self) -> float:
        return (self.won - self.lost) / self.rows

    @property
    def turned(self) -> ShareDifferences:
        """The same, seen from the champion."""
        return ShareDifferences(self.rows, self.lost, self.won)

    def lower_bound(self, confidence: float) -> float:
        """The smallest difference under which a result this good is not too unlikely, by bisection."""
        low, high = -1.0, self.mean
        for _ in range(_STEPS):
            middle = (low + high) / 2
            low, high = (low, middle) if self._tail(middle) > 1 - confidence else (middle, high)
        return low

    def decidable_margin(self, confidence: float, power: float) -> float:
        """
        The margin at which models that are equal and differ in as many rows as these would pass so often.

        Of the rows that differ, each is then lost with a probability of one half.
        """
        differing = self.won + self.lost
        lost = _least_of_coin(differing, power)
        return -ShareDifferences(self.rows, differing - lost, lost).lower_bound(confidence)

    def rows_to_decide(self, margin: float, confidence: float, power: float) -> int | None:
        """
        How many rows decide with that power at the observed rates; None where a thousand million were not enough.

        Source: Nam (1997), Biometrics 53, 1422-1430, sample size of the score test for matched pairs.
        """
        distance = abs(self.mean + margin)
        p_won, p_lost = self._cells(-margin)
        at_margin = math.sqrt(max(0.0, p_won + p_lost - margin**2))
        observed = math.sqrt(max(0.0, (self.won + self.lost) / self.rows - self.mean**2))
        wanted = float(ndtri(confidence)) * at_margin + float(ndtri(power)) * observed
        return math.ceil((wanted / distance) ** 2) if wanted < distance * math.sqrt(_MAX_ROWS) else None

    def _tail(self, difference: float) -> float:
        """How likely resamples are as good as observed or better, if the true difference is `difference`."""
        rows, ahead = self.rows, self.won - self.lost
        p_won, p_lost = self._cells(difference)
        either = min(1.0, p_won + p_lost)
        if either == 0.0:
            return 1.0 if ahead <= 0 else 0.0
        spread = _TAIL_DEVIATIONS * math.sqrt(rows * either * (1 - either)) + _TAIL_DEVIATIONS
        first, last = max(0, math.floor(rows * either - spread)), min(rows, math.ceil(rows * either + spread))
        differing = np.arange(first, last + 1)
        cumulated = bdtr(differing.astype(float), rows, either)
        weights = np.diff(cumulated, prepend=bdtr(float(first - 1), rows, either) if first else 0.0)
        # Of m rows that differ, w - (m - w) >= won - lost is w > ceil((m + won - lost) / 2) - 1.
        beyond = np.ceil((differing + ahead) / 2) - 1
        tails = np.where(beyond < 0, 1.0, bdtrc(np.clip(beyond, 0, differing), differing, p_won / either))
        return float(weights @ tails)

    def _cells(self, difference: float) -> tuple[float, float]:
        """The likeliest probabilities of a row won and one lost, given their difference (Tango's equation for q21)."""
        rows, won, lost = self.rows, self.won, self.lost
        b = -won - lost + (2 * rows - won + lost) * difference
        c = -lost * difference * (1 - difference)
        p_lost = (math.sqrt(max(0.0, b * b - 8 * rows * c)) - b) / (4 * rows)
        p_lost = min(max(p_lost, 0.0, -difference), (1 - difference) / 2)
        return p_lost + difference, p_lost


def _least_of_coin(throws: int, probability: float) -> int:
    """The smallest number of tails that a fair coin does not exceed with at least this probability."""
    from scipy.stats import binom

    return int(binom.ppf(probability, throws, 0.5)) if throws else 0
