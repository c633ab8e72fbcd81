"""
The test whether the candidate is at most a margin worse than the champion, as far as these rows show.

The bounds come from `shares` where a row is right or wrong, and from `means` for any other score of a row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr

from flows.gate.means import MeanDifferences
from flows.gate.shares import ShareDifferences


class Verdict(StrEnum):
    """What one check, or all of them together, came to."""

    PASSED = "passed"
    REJECTED = "rejected"
    INCONCLUSIVE = "inconclusive"


POWER = 0.8
"""how often a comparison of equal models is to be decided"""
MIN_MARGIN = 0.02
MAX_MARGIN = 0.5
"""rows that cannot tell half the accuracy from none do not decide anything"""
_MARGIN_STEP = 1e-3


@dataclass(frozen=True, slots=True)
class Comparison:
    """Candidate against champion on the same rows; differences are means over the rows, positive where it is better."""

    rows: int
    won: int
    """rows on which the candidate is better; of right and wrong answers, those that only it has right"""
    lost: int
    """rows on which the champion is better"""
    difference: float
    lower: float
    """the difference is at least this, with the confidence asked for"""
    upper: float
    """the difference is at most this, with the confidence asked for"""
    p_value: float
    """the exact sign test, two-sided, of as many rows won as lost; of right and wrong answers McNemar's exact test"""
    margin: float
    """the loss that counts as none"""
    verdict: Verdict
    more_rows: int | None
    """
    About how many more held-out rows would decide an inconclusive comparison in 8 of 10 cases, if the models differ as
    they do on these; None where none are needed, or no number were enough
    """


def compare_scores(
    candidate: NDArray[np.float64],
    champion: NDArray[np.float64],
    margin: float | None,
    confidence: float,
    identical: bool = False,
    unit: float = 1.0,
) -> Comparison:
    """
    Test whether the candidate is not inferior.

    Args:
        candidate: float64 [rows]: the candidate's score of each row, larger is better; 0 and 1 for wrong and right.
        champion: float64 [rows]: the champion's score of the same rows.
        margin: The loss of the mean score that counts as none; None for the smallest that these rows can decide.
        confidence: Of each one-sided bound, between 0.5 and 1.
        identical: The two give every row the same answer, which passes whatever the number of rows.
        unit: What the default margin is counted in.

    Returns:
        PASSED where the lower bound is above `-margin`, REJECTED where the upper bound is below it, else INCONCLUSIVE.
    """
    won, lost = int(np.count_nonzero(candidate > champion)), int(np.count_nonzero(champion > candidate))
    differences: ShareDifferences | MeanDifferences
    if np.isin(candidate, (0, 1)).all() and np.isin(champion, (0, 1)).all():
        differences = ShareDifferences(len(candidate), won, lost)
    else:
        differences = MeanDifferences.between(candidate, champion)
    if margin is None:
        margin = default_margin(differences, confidence, unit)
    return _compare(differences, won, lost, margin, confidence, identical)


def compare_counts(
    rows: int, won: int, lost: int, margin: float | None, confidence: float, identical: bool = False
) -> Comparison:
    """The same, from the number of rows that only the candidate, or only the champion, has right."""
    differences = ShareDifferences(rows, won, lost)
    if margin is None:
        margin = default_margin(differences, confidence)
    return _compare(differences, won, lost, margin, confidence, identical)


def _compare(
    differences: ShareDifferences | MeanDifferences,
    won: int,
    lost: int,
    margin: float,
    confidence: float,
    identical: bool,
) -> Comparison:
    lower, upper = differences.lower_bound(confidence), -differences.turned.lower_bound(confidence)
    if identical or lower > -margin:
        verdict = Verdict.PASSED
    else:
        verdict = Verdict.REJECTED if upper < -margin else Verdict.INCONCLUSIVE
    more_rows = None
    if verdict is Verdict.INCONCLUSIVE and (needed := differences.rows_to_decide(margin, confidence, POWER)):
        more_rows = max(1, needed - differences.rows)
    return Comparison(
        differences.rows, won, lost, differences.mean, lower, upper, mcnemar(won, lost), margin, verdict, more_rows
    )


def default_margin(differences: ShareDifferences | MeanDifferences, confidence: float, unit: float = 1.0) -> float:
    """
    The smallest margin that these rows can decide: at which equal models that differ as much pass in 8 of 10 cases.

    It is rounded up, and never below 0.02 nor above 0.5 of `unit`.
    """
    steps = math.floor(differences.decidable_margin(confidence, POWER) / unit / _MARGIN_STEP + 1)
    return min(MAX_MARGIN, max(MIN_MARGIN, round(steps * _MARGIN_STEP, 3))) * unit


def mcnemar(won: int, lost: int) -> float:
    """Two-sided p-value of McNemar's exact test, whose null is that a fair coin decides the rows that differ."""
    return min(1.0, 2 * float(bdtr(min(won, lost), won + lost, 0.5)))
