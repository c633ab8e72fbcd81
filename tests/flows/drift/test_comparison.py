"""When has a column drifted?"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from flows.drift.columns import Column, Kind, category_column, number_column
from flows.drift.comparison import ColumnDrift, Limits, compare, decided
from flows.drift.profile import ColumnProfile

EVERYTHING = Limits(psi=0.0, missing=0.0)
"""limits by which every significant difference counts"""
WORDS = np.array(["a", "b", "c", "d", "e"], object)


def compared(before: Column, now: Column) -> ColumnDrift:
    """One column beside its profile, alone."""
    limits = Limits()
    return decided(compare({now.name: now}, [ColumnProfile.of(before)], limits, "not in the log"), limits)[0]


def normal(seed: int, rows: int, mean: float = 0.0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(mean, 1, rows)


def words(seed: int, rows: int, chances: tuple[float, ...] = (0.4, 0.3, 0.15, 0.1, 0.05)) -> NDArray[np.object_]:
    return np.random.default_rng(seed).choice(WORDS, rows, p=chances)


def test_numbers_that_have_shifted() -> None:
    """A shift of half a deviation is found, with its index, its test and what lies beyond the training data."""
    found = compared(number_column("x", normal(1, 2000)), number_column("x", normal(2, 1000, mean=0.5)))
    assert found.drifted
    assert found.note == "values have shifted"
    assert found.test == "KS"
    assert found.psi == pytest.approx(0.25, abs=0.06)
    assert found.p_value is not None
    assert found.p_value < 1e-10


def test_a_small_difference_of_many_rows_is_none() -> None:
    """A tenth of a deviation is beyond all doubt with 100,000 rows, and too small to matter."""
    found = compared(number_column("x", normal(1, 100_000)), number_column("x", normal(2, 100_000, mean=0.1)))
    assert found.p_value is not None
    assert found.p_value < 0.05
    assert not found.drifted


def test_categories_that_have_shifted() -> None:
    """Other shares of categories are found, and so is a category that the training data did not have."""
    before = category_column("x", words(1, 2000))
    assert compared(before, category_column("x", words(2, 1000, (0.1, 0.3, 0.15, 0.1, 0.35)))).drifted
    strange = words(3, 1000)
    strange[:100] = "new"
    found = compared(before, category_column("x", strange))
    assert found.drifted
    assert found.unseen == pytest.approx(0.1)
    assert not compared(before, category_column("x", words(4, 1000))).drifted


def test_more_values_are_missing() -> None:
    """A column that is empty more often has drifted, though its values have not."""
    now = normal(2, 1000)
    now[:200] = np.nan
    found = compared(number_column("x", normal(1, 1000)), number_column("x", now))
    assert found.drifted
    assert found.note == "more are missing"
    assert (found.missing_before, found.missing_now) == (0.0, 0.2)


@pytest.mark.parametrize(
    ("now", "note"),
    [
        (number_column("x", normal(2, 99)), "fewer than 100 values"),
        (number_column("other", normal(2, 1000)), "not in the log"),
        (category_column("x", words(1, 1000)), "logged as a hash"),
    ],
)
def test_what_is_not_compared(now: Column, note: str) -> None:
    """A column with few values, none, or hashes is not compared, and says why."""
    found = compared(number_column("x", normal(1, 1000)), now)
    assert not found.drifted
    assert (found.psi, found.note) == (None, note)


def test_of_dates_only_what_is_missing_is_compared() -> None:
    """Dates go on, and are no drift; that more of them are missing is."""
    before = category_column("x", np.array(["2026-01-01"] * 500, object), Kind.DATE)
    later = np.array(["2027-01-01"] * 500, object)
    assert not compared(before, category_column("x", later, Kind.DATE)).drifted
    later[:100] = ""
    assert compared(before, category_column("x", later, Kind.DATE)).drifted


def test_false_alarms_are_as_rare_as_the_level() -> None:
    """Where nothing has changed, of ten columns together any is found in at most 5 of 100 comparisons."""
    trials = 60
    alarms = {EVERYTHING: 0, Limits(): 0}
    for trial in range(trials):
        profiles, columns = _unchanged(np.random.default_rng(trial), count=10)
        for limits in alarms:
            found = decided(compare(columns, profiles, limits, ""), limits)
            alarms[limits] += any(each.drifted for each in found)
    most = 0.05 * trials + 2 * np.sqrt(0.05 * 0.95 * trials)
    assert alarms[Limits()] <= alarms[EVERYTHING] <= most


def _unchanged(random: np.random.Generator, count: int) -> tuple[list[ColumnProfile], dict[str, Column]]:
    """Columns of numbers with gaps and of words, each drawn twice in the same way."""
    profiles, columns = [], {}
    for number in range(count):
        one, other = random.integers(0, 2**32, 2).tolist()
        if number % 2:
            before, now = (
                category_column(f"x{number}", words(seed, rows)) for seed, rows in ((one, 600), (other, 400))
            )
        else:
            before, now = (_with_gaps(f"x{number}", seed, rows) for seed, rows in ((one, 1500), (other, 400)))
        profiles.append(ColumnProfile.of(before))
        columns[now.name] = now
    return profiles, columns


def _with_gaps(name: str, seed: int, rows: int) -> Column:
    values = normal(seed, rows).round(1)
    values[np.random.default_rng(seed + 1).random(rows) < 0.1] = np.nan
    return number_column(name, values)
