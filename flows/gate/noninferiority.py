"""
The test whether the candidate is at most a margin less accurate than the champion, as far as these rows show.

Both answered the same rows, so only rows that one has right and the other wrong tell them apart. The test is a paired
bootstrap. Resampled rows of a classifier are draws from a multinomial with three cells (only the candidate right, only
the champion right, both alike), whose distribution is known: it is computed instead of drawn, which is the bootstrap
with infinitely many resamples. The cells are those that fit the rows best *under the hypothesis* that the difference is
exactly d; a bound is the d that is just rejected. A percentile bootstrap, which resamples the cells as observed, finds
far too little variation where few rows differ.

Sources:
    Tango (1998), Statistics in Medicine 17, 891-908: the cells under the hypothesis.
    Carpenter (1999), Journal of the Royal Statistical Society B 61, 159-172: bounds by inverting a bootstrap test.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, bdtrc, ndtri


class Verdict(StrEnum):
    """What one check, or all of them together, came to."""

    PASSED = "passed"
    REJECTED = "rejected"
    INCONCLUSIVE = "inconclusive"


_STEPS = 24
_TAIL_DEVIATIONS = 10  # what lies beyond has a probability below 1e-20
_POWER = 0.8
_MAX_ROWS = 10**9


@dataclass(frozen=True, slots=True)
class Comparison:
    """Candidate against champion on the same rows; differences are shares of the rows, positive where it is better."""

    rows: int
    won: int
    """rows that only the candidate has right"""
    lost: int
    """rows that only the champion has right"""
    lower: float
    """the difference is at least this, with the confidence asked for"""
    upper: float
    """the difference is at most this, with the confidence asked for"""
    p_value: float
    """McNemar's exact test, two-sided, of equal accuracy"""
    verdict: Verdict
    more_rows: int | None
    """
    About how many more held-out rows would decide an inconclusive comparison in 8 of 10 cases, if the models differ as
    they do on these; None where none are needed, or a thousand million were not enough
    """

    @property
    def difference(self) -> float:
        return (self.won - self.lost) / self.rows


def compare_paired(
    candidate: NDArray[np.bool_], champion: NDArray[np.bool_], margin: float, confidence: float, identical: bool = False
) -> Comparison:
    """
    Test whether the candidate is not inferior.

    Args:
        candidate: bool [rows]: which rows the candidate has right.
        champion: bool [rows]: which of the same rows the champion has right.
        margin: The loss of accuracy that counts as none.
        confidence: Of each one-sided bound, between 0.5 and 1.
        identical: The two give every row the same class, which passes whatever the number of rows.

    Returns:
        PASSED where the lower bound is above `-margin`, REJECTED where the upper bound is below it, else INCONCLUSIVE.
    """
    won, lost = int(np.count_nonzero(candidate & ~champion)), int(np.count_nonzero(champion & ~candidate))
    return compare_counts(len(candidate), won, lost, margin, confidence, identical)


def compare_counts(
    rows: int, won: int, lost: int, margin: float, confidence: float, identical: bool = False
) -> Comparison:
    """The same, from the number of rows that only the candidate, or only the champion, has right."""
    lower = _lower_bound(rows, won, lost, confidence)
    upper = -_lower_bound(rows, lost, won, confidence)
    if identical or lower > -margin:
        verdict = Verdict.PASSED
    else:
        verdict = Verdict.REJECTED if upper < -margin else Verdict.INCONCLUSIVE
    more_rows = _more_rows(rows, won, lost, margin, confidence) if verdict is Verdict.INCONCLUSIVE else None
    return Comparison(rows, won, lost, lower, upper, mcnemar(won, lost), verdict, more_rows)


def mcnemar(won: int, lost: int) -> float:
    """Two-sided p-value of McNemar's exact test, whose null is that a fair coin decides the rows that differ."""
    return min(1.0, 2 * float(bdtr(min(won, lost), won + lost, 0.5)))


def _lower_bound(rows: int, won: int, lost: int, confidence: float) -> float:
    """The smallest difference under which a result this good is not too unlikely, by bisection."""
    low, high = -1.0, (won - lost) / rows
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if _tail(rows, won, lost, middle) > 1 - confidence else (middle, high)
    return low


def _tail(rows: int, won: int, lost: int, difference: float) -> float:
    """How likely resamples of the rows are as good as observed or better, if the true difference is `difference`."""
    p_won, p_lost = _cells(rows, won, lost, difference)
    either = min(1.0, p_won + p_lost)
    if either == 0.0:
        return 1.0 if won <= lost else 0.0
    spread = _TAIL_DEVIATIONS * math.sqrt(rows * either * (1 - either)) + _TAIL_DEVIATIONS
    first, last = max(0, math.floor(rows * either - spread)), min(rows, math.ceil(rows * either + spread))
    differing = np.arange(first, last + 1)
    cumulated = bdtr(differing.astype(float), rows, either)
    weights = np.diff(cumulated, prepend=bdtr(float(first - 1), rows, either) if first else 0.0)
    # Of m rows that differ, w - (m - w) >= won - lost is w > ceil((m + won - lost) / 2) - 1.
    beyond = np.ceil((differing + won - lost) / 2) - 1
    tails = np.where(beyond < 0, 1.0, bdtrc(np.clip(beyond, 0, differing), differing, p_won / either))
    return float(weights @ tails)


def _cells(rows: int, won: int, lost: int, difference: float) -> tuple[float, float]:
    """The likeliest probabilities of a row won and a row lost, given their difference (Tango's equation for q21)."""
    b = -won - lost + (2 * rows - won + lost) * difference
    c = -lost * difference * (1 - difference)
    p_lost = (math.sqrt(max(0.0, b * b - 8 * rows * c)) - b) / (4 * rows)
    p_lost = min(max(p_lost, 0.0, -difference), (1 - difference) / 2)
    return p_lost + difference, p_lost


def _more_rows(rows: int, won: int, lost: int, margin: float, confidence: float) -> int | None:
    """
    How many rows are missing for a power of 0.8, at the observed rates.

    Source: Nam (1997), Biometrics 53, 1422-1430, sample size of the score test for matched pairs.
    """
    difference = (won - lost) / rows
    distance = abs(difference + margin)
    p_won, p_lost = _cells(rows, won, lost, -margin)
    at_margin = math.sqrt(max(0.0, p_won + p_lost - margin**2))
    observed = math.sqrt(max(0.0, (won + lost) / rows - difference**2))
    wanted = float(ndtri(confidence)) * at_margin + float(ndtri(_POWER)) * observed
    if wanted >= distance * math.sqrt(_MAX_ROWS):
        return None
    return max(1, math.ceil((wanted / distance) ** 2) - rows)
