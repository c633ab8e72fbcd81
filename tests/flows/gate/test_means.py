"""Bounds of the mean difference of paired scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from flows.gate.means import MeanDifferences
from flows.gate.noninferiority import MAX_MARGIN, POWER, Verdict, compare_scores
from tests.benchmarks.paired_scores import CONFIDENCE, FAMILIES, simulate_means, t_test_passes

LEVEL = 1 - CONFIDENCE


def of(differences: Any, worst: float) -> MeanDifferences:
    """Rows with these differences, among scores that are at most `worst` apart."""
    values, counts = np.unique(np.asarray(differences, float), return_counts=True)
    return MeanDifferences(values, counts.astype(float), worst)


@pytest.mark.parametrize(("rows", "lost"), [(30, 0), (30, 3), (200, 1), (2000, 0)])
def test_where_scores_are_shares_the_bound_is_the_exact_binomial_one(rows: int, lost: int) -> None:
    """Clopper and Pearson's, within the hundredth part by which a saddlepoint may miss a tail."""
    exact = stats.beta.ppf(CONFIDENCE, lost + 1, rows - lost)
    assert of([-1] * lost + [0] * (rows - lost), 1).lower_bound(CONFIDENCE) == pytest.approx(-exact, rel=0.01)


@pytest.mark.parametrize("rows", [5, 30, 100])
def test_the_bound_is_that_of_drawn_weights(rows: int) -> None:
    """It is near the quantile of a hundred thousand weighted means."""
    random = np.random.default_rng(rows)
    differences = random.standard_t(3, rows)
    weights = random.dirichlet(np.ones(rows + 1), 100_000)
    drawn = np.quantile(weights @ np.append(differences, -9), LEVEL)
    assert of(differences, 9).lower_bound(CONFIDENCE) == pytest.approx(drawn, abs=0.03)


def test_with_many_rows_the_bounds_are_those_of_the_normal_distribution() -> None:
    """Skewed scores of 100,000 rows have a mean that is all but normal."""
    champion = -np.random.default_rng(0).exponential(size=100_000)
    candidate = champion + 0.1 * np.random.default_rng(1).exponential(size=100_000)
    found = compare_scores(candidate, champion, 0.02, CONFIDENCE)
    deviation = np.std(candidate - champion) / np.sqrt(100_000)
    expected = found.difference + np.array([-1, 1]) * stats.norm.ppf(CONFIDENCE) * deviation
    np.testing.assert_allclose([found.lower, found.upper], expected, atol=2e-4)


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 200), st.integers(0, 2**32 - 1), st.sampled_from(sorted(FAMILIES)))
def test_bounds_hold_the_mean_and_mirror_each_other(rows: int, seed: int, family: str) -> None:
    """They enclose what was observed, change places when the models do, and grow with the unit of the scores."""
    random = np.random.default_rng(seed)
    champion = -random.exponential(size=rows)
    candidate = champion + FAMILIES[family](random, rows, 0.1)
    there, back = (compare_scores(*both, 0.1, CONFIDENCE) for both in ((candidate, champion), (champion, candidate)))
    assert there.lower <= there.difference <= there.upper
    assert (there.lower, there.upper) == pytest.approx((-back.upper, -back.lower), abs=1e-6)
    thousands = compare_scores(candidate * 1000, champion * 1000, 100, CONFIDENCE)
    assert thousands.lower == pytest.approx(1000 * there.lower, rel=1e-4, abs=1e-3)


def error_rates(family: str, rows: int, pairs: int) -> None:
    """Hold the rates of false promotion and of false rejection under the level, by a given and the default margin."""
    for worse in (0.1, 0.3):
        assert simulate_means(family, rows, worse, worse, pairs)[Verdict.PASSED] <= LEVEL
        assert simulate_means(family, rows, worse, None, pairs)[Verdict.PASSED] <= LEVEL
    assert simulate_means(family, rows, 0.0, None, pairs)[Verdict.REJECTED] <= LEVEL


@pytest.mark.parametrize("family", FAMILIES)
def test_error_rates_keep_to_the_level(family: str) -> None:
    """Heavy tails, skew, ties and rare failures: at most 5 of 100 pass that are worse by the margin."""
    error_rates(family, 30, 100)


def test_a_t_test_would_not_do() -> None:
    """On 30 rows it passes more than half of the candidates that fail badly on one row in a hundred."""
    assert t_test_passes("rare failures", 30, 0.02, 500) > 0.5


@pytest.mark.soak
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("rows", [30, 100, 300, 1000, 3000, 10_000])
def test_error_rates_keep_to_the_level_in_the_long_run(family: str, rows: int) -> None:
    """The same with ten times the pairs, from 30 to 10,000 rows."""
    error_rates(family, rows, 1000)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_default_margin_decides_equal_models(family: str) -> None:
    """Of 100 pairs of equal models that 300 rows compare, about 80 pass, or more."""
    assert simulate_means(family, 300, 0.0, None, 100)[Verdict.PASSED] >= POWER - 0.05


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_much_worse_is_rejected(family: str) -> None:
    """300 rows show a loss of twice the usual error, though the default margin grows with what the models differ by."""
    assert simulate_means(family, 300, 2.0, None, 20)[Verdict.REJECTED] >= 0.9


def test_the_rows_that_are_said_to_decide_do_so() -> None:
    """With that many rows of the same kind, about 8 of 10 comparisons are decided."""
    random = np.random.default_rng(0)
    champion = -random.random(100)
    found = compare_scores(champion + 0.3 * random.normal(size=100), champion, 0.05, CONFIDENCE)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.more_rows is not None
    decided = 0
    for _ in range(100):
        champion = -random.random(100 + found.more_rows)
        candidate = champion + 0.3 * random.normal(size=len(champion)) + found.difference
        decided += compare_scores(candidate, champion, 0.05, CONFIDENCE).verdict is not Verdict.INCONCLUSIVE
    assert 65 <= decided <= 95


def test_few_rows_without_any_difference_prove_nothing() -> None:
    """Scores that are all the same leave open how far others may be apart."""
    same = np.full(4, 0.5)
    found = compare_scores(same, same, None, CONFIDENCE)
    assert (found.verdict, found.margin) == (Verdict.INCONCLUSIVE, MAX_MARGIN)


def test_a_million_rows_are_compared_in_seconds() -> None:
    """A tenth of them in a fraction of a second of processor time."""
    import time

    random = np.random.default_rng(0)
    champion = -random.exponential(size=100_000)
    candidate = champion + random.normal(size=100_000)
    started = time.process_time()
    compare_scores(candidate, champion, None, CONFIDENCE)
    assert time.process_time() - started < 2
