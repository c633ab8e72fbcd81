"""The test of a candidate against a champion on the same rows."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from flows.gate.noninferiority import MAX_MARGIN, MIN_MARGIN, POWER, Verdict, compare_counts, compare_scores, mcnemar
from flows.recipes.finding import find_recipe
from tests.benchmarks.gate_errors import DIFFERING, HELD_OUT, margin_of, simulate

ROWS, MARGIN, CONFIDENCE = 30, 0.15, 0.95
MOST_ROWS = "digits"
"""the recipe whose comparisons take longest"""


@cache
def verdict(rows: int, won: int, lost: int, margin: float) -> Verdict:
    return compare_counts(rows, won, lost, margin, CONFIDENCE).verdict


def rate(of: Verdict, rows: int, won: float, lost: float, margin: float) -> float:
    """The probability of a verdict, summed over every outcome, when rows are won and lost with these probabilities."""
    outcomes = [(w, l) for w in range(rows + 1) for l in range(rows + 1 - w)]  # noqa: E741
    cells = np.array([(w, l, rows - w - l) for w, l in outcomes])  # noqa: E741
    weights = stats.multinomial.pmf(cells, rows, [won, lost, 1 - won - lost])
    return float(sum(p for p, (w, l) in zip(weights, outcomes, strict=True) if verdict(rows, w, l, margin) is of))  # noqa: E741


@pytest.mark.parametrize(
    ("won", "lost", "expected"),
    [
        (0, 0, Verdict.PASSED),
        (0, 1, Verdict.PASSED),
        (1, 1, Verdict.PASSED),
        (5, 0, Verdict.PASSED),
        (0, 2, Verdict.INCONCLUSIVE),
        (0, 12, Verdict.REJECTED),
        (0, 30, Verdict.REJECTED),
    ],
)
def test_thirty_rows_tell_good_from_bad(won: int, lost: int, expected: Verdict) -> None:
    """One more wrong row of 30 is no evidence of a loss of 0.15, two leave it open, twelve prove it."""
    found = compare_counts(ROWS, won, lost, MARGIN, CONFIDENCE)
    assert found.verdict is expected
    assert found.lower < found.difference < found.upper or abs(won - lost) == ROWS
    assert (found.more_rows is None) == (expected is not Verdict.INCONCLUSIVE)


@pytest.mark.parametrize("lost", [0, 1, 2, 7])
def test_where_nothing_is_won_the_bound_is_the_exact_binomial_one(lost: int) -> None:
    """Then the test is that of one proportion, for which Clopper and Pearson's bound is exact."""
    exact = stats.beta.ppf(CONFIDENCE, lost + 1, ROWS - lost)
    assert compare_counts(ROWS, 0, lost, MARGIN, CONFIDENCE).lower == pytest.approx(-exact, abs=1e-5)


def test_with_many_rows_the_bounds_are_those_of_the_normal_distribution() -> None:
    """With 20,000 rows the mean of the paired differences is all but normal."""
    found = compare_counts(20_000, 900, 1100, MARGIN, CONFIDENCE)
    deviation = np.sqrt(2000 / 20_000 - found.difference**2) / np.sqrt(20_000)
    expected = found.difference + np.array([-1, 1]) * stats.norm.ppf(CONFIDENCE) * deviation
    np.testing.assert_allclose([found.lower, found.upper], expected, atol=1e-4)


@given(st.integers(1, 400), st.data())
def test_bounds_hold_the_difference_and_mirror_each_other(rows: int, data: Any) -> None:
    """They enclose what was observed, stay within -1 and 1, and change places when the models do."""
    won = data.draw(st.integers(0, rows))
    lost = data.draw(st.integers(0, rows - won))
    there, back = (compare_counts(rows, a, b, 0.05, CONFIDENCE) for a, b in ((won, lost), (lost, won)))
    assert -1 <= there.lower <= there.difference + 1e-6
    assert there.difference - 1e-6 <= there.upper <= 1
    assert (there.lower, there.upper) == (-back.upper, -back.lower)


@pytest.mark.parametrize("won", [0.0, 0.01, 0.05, 0.2, 0.4])
def test_what_is_worse_by_the_margin_passes_no_more_often_than_allowed(won: float) -> None:
    """However many rows the two models see differently; every outcome is counted, so there is no luck in it."""
    assert 0.02 < rate(Verdict.PASSED, ROWS, won, won + MARGIN, MARGIN) <= 1 - CONFIDENCE
    assert rate(Verdict.REJECTED, ROWS, won, won + MARGIN, MARGIN) <= 1 - CONFIDENCE


@pytest.mark.parametrize(
    "recipe", [pytest.param(name, marks=pytest.mark.soak if name == MOST_ROWS else ()) for name in DIFFERING]
)
def test_simulated_pairs_of_models_keep_to_the_level(recipe: str) -> None:
    """Worse by the margin: at most 5 of 100 pass. Equal or better: at most 5 of 100 rejected, 9 of 10 pass."""
    margin, level = margin_of(recipe), 1 - find_recipe(recipe).thresholds.confidence
    assert simulate(recipe, -margin)[Verdict.PASSED] <= level
    for better in (0.0, margin):
        rates = simulate(recipe, better)
        assert rates[Verdict.REJECTED] <= level
        assert rates[Verdict.PASSED] >= 0.9
    assert simulate(recipe, -0.5)[Verdict.REJECTED] >= 0.9


def test_the_rows_that_are_said_to_decide_do_so() -> None:
    """With that many more rows of the same kind, about 8 of 10 comparisons are decided."""
    found = compare_counts(359, 1, 7, 0.03, CONFIDENCE)
    assert found.more_rows is not None
    rows = 359 + found.more_rows
    drawn = np.random.default_rng(0).multinomial(rows, [1 / 359, 7 / 359, 351 / 359], 500)
    decided = [verdict(rows, int(won), int(lost), 0.03) is not Verdict.INCONCLUSIVE for won, lost, _ in drawn]
    assert 0.7 < np.mean(decided) < 0.9


def test_no_number_of_rows_decides_at_the_margin_itself() -> None:
    """A candidate that is worse by just the margin stays open."""
    found = compare_counts(100, 0, 10, 0.1, CONFIDENCE)
    assert (found.verdict, found.more_rows) == (Verdict.INCONCLUSIVE, None)


def test_the_same_answers_pass_on_few_rows_too() -> None:
    """Four rows prove little, but models that cannot be told apart are not held up."""
    for scores in (np.array([1.0, 1.0, 0.0, 1.0]), np.array([-0.1, -2.0, -0.3, -0.4])):
        assert compare_scores(scores, scores, 0.02, CONFIDENCE).verdict is Verdict.INCONCLUSIVE
        assert compare_scores(scores, scores, 0.02, CONFIDENCE, identical=True).verdict is Verdict.PASSED


def test_rows_are_paired() -> None:
    """Only rows that one of the two has right count."""
    candidate, champion = np.array([1.0, 1.0, 0.0, 0.0, 1.0]), np.array([1.0, 0.0, 1.0, 0.0, 0.0])
    found = compare_scores(candidate, champion, MARGIN, CONFIDENCE)
    assert (found.rows, found.won, found.lost, found.difference) == (5, 2, 1, 0.2)


@pytest.mark.parametrize(("won", "lost"), [(0, 0), (1, 0), (3, 9), (40, 40)])
def test_mcnemar_is_the_exact_binomial_test(won: int, lost: int) -> None:
    """The p-value is that of SciPy's two-sided test of a fair coin."""
    expected = stats.binomtest(won, won + lost).pvalue if won + lost else 1.0
    assert mcnemar(won, lost) == pytest.approx(expected)


def test_the_held_out_rows_are_as_many_as_simulated() -> None:
    """The simulation has the recipes' own numbers of rows."""
    from flows.training.dataset import load_dataset

    assert {name: len(load_dataset(find_recipe(name)).test) for name in HELD_OUT} == HELD_OUT


def of_every_outcome(rows: int) -> tuple[NDArray[np.int64], list[Verdict], NDArray[np.float64]]:
    """Rows won, lost and neither of every outcome, with its verdict by the default margin, and that margin."""
    cells = np.array([(w, l, rows - w - l) for w in range(rows + 1) for l in range(rows + 1 - w)])  # noqa: E741
    found = [compare_counts(rows, int(won), int(lost), None, CONFIDENCE) for won, lost, _ in cells]
    return cells, [each.verdict for each in found], np.array([each.margin for each in found])


@pytest.mark.parametrize("rows", [10, 30])
def test_the_default_margin_lets_nothing_pass_that_is_worse_by_more(rows: int) -> None:
    """However much worse and however many rows differ, at most 5 of 100 pass by a margin that the loss exceeds."""
    cells, verdicts, margins = of_every_outcome(rows)
    passed = np.array([verdict is Verdict.PASSED for verdict in verdicts])
    for won in (0.0, 0.01, 0.03, 0.1, 0.2, 0.3):
        for worse in np.arange(0.02, min(0.6, 1 - 2 * won), 0.02):
            chance = stats.multinomial.pmf(cells, rows, [won, won + worse, 1 - 2 * won - worse])
            assert chance[passed & (margins <= worse + 1e-9)].sum() <= 1 - CONFIDENCE


def test_the_default_margin_decides_equal_models() -> None:
    """Eight of ten equal models pass, however many of 30 rows they see differently, and none is rejected."""
    cells, verdicts, _ = of_every_outcome(30)
    for differing in (0.01, 0.05, 0.1, 0.2, 0.4):
        chance = stats.multinomial.pmf(cells, 30, [differing / 2, differing / 2, 1 - differing])
        assert chance[[verdict is Verdict.PASSED for verdict in verdicts]].sum() >= POWER
        assert chance[[verdict is Verdict.REJECTED for verdict in verdicts]].sum() <= 1 - CONFIDENCE


def test_the_default_margin_shrinks_with_the_rows_to_a_floor() -> None:
    """200 rows of which 10 differ decide 0.042; thousands decide 0.02, and none less; three rows decide nothing."""
    assert [compare_counts(rows, 5, 5, None, CONFIDENCE).margin for rows in (200, 2000)] == [0.042, MIN_MARGIN]
    few = compare_counts(3, 0, 0, None, CONFIDENCE)
    assert (few.margin, few.verdict) == (MAX_MARGIN, Verdict.INCONCLUSIVE)
