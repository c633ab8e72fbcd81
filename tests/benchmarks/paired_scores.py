"""Pairs of models whose scores differ by a known mean, in all the ways that make means hard to judge by few rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from flows.gate.noninferiority import Verdict, compare_scores

Scores = NDArray[np.float64]
CONFIDENCE = 0.95
_LOGNORMAL_MEAN = float(np.exp(1.5**2 / 2))
_FAILURE = 2.0  # twice the usual error of a row


def _noise(random: np.random.Generator, rows: int, worse: float) -> Scores:
    return 0.2 * random.normal(size=rows) - worse


def _heavy_tails(random: np.random.Generator, rows: int, worse: float) -> Scores:
    """Student's t with 2.1 degrees of freedom, whose variance is hardly finite."""
    return 0.2 * random.standard_t(2.1, rows) - worse


def _skewed_losses(random: np.random.Generator, rows: int, worse: float) -> Scores:
    """Most rows lose a little, a few lose much."""
    return 0.1 - worse - 0.1 * random.lognormal(0, 1.5, rows) / _LOGNORMAL_MEAN


def _skewed_gains(random: np.random.Generator, rows: int, worse: float) -> Scores:
    return 0.1 * random.lognormal(0, 1.5, rows) / _LOGNORMAL_MEAN - 0.1 - worse


def _many_ties(random: np.random.Generator, rows: int, worse: float) -> Scores:
    """Nine rows of ten are alike, the others differ by 0.3 either way."""
    differs = random.random(rows) < 0.1
    lost = random.random(rows) < 0.5
    return np.asarray(np.where(differs, np.where(lost, -0.3, 0.3), 0.0) - (random.random(rows) < worse))


def _rare_failures(random: np.random.Generator, rows: int, worse: float) -> Scores:
    """All rows are nearly alike, but for a few that fail badly."""
    return 0.05 * random.normal(size=rows) - _FAILURE * (random.random(rows) < worse / _FAILURE)


FAMILIES: Mapping[str, Callable[[np.random.Generator, int, float], Scores]] = {
    "noise": _noise,
    "heavy tails": _heavy_tails,
    "skewed losses": _skewed_losses,
    "skewed gains": _skewed_gains,
    "many ties": _many_ties,
    "rare failures": _rare_failures,
}
"""Per row the candidate's score less the champion's, whose mean is minus the last argument."""


def simulate_means(
    family: str, rows: int, worse: float, margin: float | None, pairs: int, seed: int = 0
) -> Mapping[Verdict, float]:
    """
    Verdicts on pairs of models of which the candidate is worse by `worse` in the mean, as shares of all pairs.

    A pair that passes by a default margin wider than that is not counted as passed: a loss within the margin is none.
    """
    random = np.random.default_rng([seed, rows, *family.encode()])
    verdicts: Counter[Verdict] = Counter()
    for _ in range(pairs):
        champion = -np.abs(random.normal(size=rows)) / 0.8
        found = compare_scores(champion + FAMILIES[family](random, rows, worse), champion, margin, CONFIDENCE)
        if found.verdict is not Verdict.PASSED or found.margin <= worse + 1e-9 or worse <= 0:
            verdicts[found.verdict] += 1
    return {verdict: verdicts[verdict] / pairs for verdict in Verdict}


def t_test_passes(family: str, rows: int, worse: float, pairs: int, seed: int = 0) -> float:
    """How often the usual t-test passes candidates that are worse by the margin, as a share of all pairs."""
    from scipy.stats import ttest_1samp

    random = np.random.default_rng([seed, rows, *family.encode()])
    differences = np.stack([FAMILIES[family](random, rows, worse) for _ in range(pairs)])
    p_values = ttest_1samp(differences, -worse, axis=1, alternative="greater").pvalue
    return float((p_values < 1 - CONFIDENCE).mean())
