"""
Compares columns with their profiles.

With many rows every difference is significant, and with many columns some always is. So a column has drifted where two
things hold: the difference is large (the population stability index, PSI, or for what is missing the difference of the
shares), and it is none of chance, by a test whose p-values are adjusted for all tests of the model together.

Sources:
    Siddiqi (2006), Credit Risk Scorecards: PSI, and 0.1 and 0.25 as what is worth a look and what is a shift.
    Yurdakul (2018), Statistical Properties of Population Stability Index: its mean where nothing has changed.
    Benjamini and Hochberg (1995), JRSS B 57, 289-300: `scipy.stats.false_discovery_control`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2_contingency, false_discovery_control, ks_2samp

from flows.drift.columns import Column, Kind
from flows.drift.profile import ColumnProfile, category_counts

_BINS = 10
_MIN_EXPECTED = 5.0
_HALF = 0.5
"""added to every count, so that a bin that is empty on one side counts as nearly empty"""


@dataclass(frozen=True, slots=True)
class Limits:
    """When a difference is one."""

    psi: float = 0.1
    """of the values, less what chance alone would make of it"""
    missing: float = 0.05
    """difference of the shares of missing values"""
    level: float = 0.05
    """of the tests: how often anything at all is found where nothing has changed, at most"""
    min_rows: int = 100
    """with fewer known values a column is not compared"""


@dataclass(frozen=True, slots=True)
class ColumnDrift:
    """What one column is like now, beside the training data."""

    name: str
    kind: str
    rows: int
    """that were logged"""
    psi: float | None = None
    """population stability index, less what chance alone would make of it; None where the values are not compared"""
    test: str = ""
    """KS or chi2"""
    statistic: float | None = None
    """of KS the largest distance of the distributions, of chi2 Cramér's V"""
    p_value: float | None = None
    """of the values, adjusted for all tests of the model"""
    missing_before: float = 0.0
    missing_now: float = 0.0
    missing_p_value: float | None = None
    unseen: float = 0.0
    """share of values that the training data did not have: other categories, or numbers beyond its least and most"""
    drifted: bool = False
    note: str = ""
    """what has drifted, or why it is not compared"""


def compare(
    columns: Mapping[str, Column], profiles: Sequence[ColumnProfile], limits: Limits, left_out: str
) -> list[ColumnDrift]:
    """
    Every profile with its column; p-values are not adjusted yet.

    Args:
        columns: By name.
        profiles: What they are held against.
        limits: When a column has too few rows.
        left_out: What to say of a column that is not there.
    """
    return [_compared(profile, columns.get(profile.name), limits, left_out) for profile in profiles]


def decided(found: Sequence[ColumnDrift], limits: Limits) -> list[ColumnDrift]:
    """The same with p-values adjusted for all of them, and which have drifted."""
    tests = [(at, name) for at, each in enumerate(found) for name in ("p_value", "missing_p_value")]
    tests = [(at, name) for at, name in tests if getattr(found[at], name) is not None]
    if not tests:
        return list(found)
    adjusted = false_discovery_control([getattr(found[at], name) for at, name in tests])
    decided = list(found)
    for (at, name), p_value in zip(tests, adjusted, strict=True):
        changed: dict[str, Any] = {name: float(p_value)}
        decided[at] = replace(decided[at], **changed)
    return [_judged(each, limits) for each in decided]


def _judged(found: ColumnDrift, limits: Limits) -> ColumnDrift:
    notes = []
    if found.psi is not None and found.p_value is not None and found.psi >= limits.psi and found.p_value < limits.level:
        notes.append("values have shifted")
    change = found.missing_now - found.missing_before
    is_significant = found.missing_p_value is not None and found.missing_p_value < limits.level
    if is_significant and abs(change) >= limits.missing:
        notes.append(f"{'more' if change > 0 else 'fewer'} are missing")
    return replace(found, drifted=bool(notes), note=", ".join(notes) or found.note)


def _compared(profile: ColumnProfile, column: Column | None, limits: Limits, left_out: str) -> ColumnDrift:
    if column is None:
        return ColumnDrift(profile.name, profile.kind, 0, missing_before=profile.missing_share, note=left_out)
    share = column.missing / column.rows if column.rows else 0.0
    found = ColumnDrift(
        profile.name, profile.kind, column.rows, missing_before=profile.missing_share, missing_now=share
    )
    if column.kind is not profile.kind:
        return replace(found, note="logged as a hash")
    if column.rows >= limits.min_rows and profile.rows:
        found = replace(found, missing_p_value=_missing_p_value(profile, column))
    if profile.kind is Kind.DATE:
        return replace(found, note="of dates only what is missing is compared")
    if len(column.values) < limits.min_rows or not (profile.values or profile.categories):
        return replace(found, note=f"fewer than {limits.min_rows} values")
    return _numbers(found, profile, column) if profile.kind is Kind.NUMBER else _categories(found, profile, column)


def _missing_p_value(profile: ColumnProfile, column: Column) -> float | None:
    table = np.array(
        [[profile.missing, profile.rows - profile.missing], [column.missing, column.rows - column.missing]]
    )
    return None if (table.sum(axis=0) == 0).any() else float(chi2_contingency(table).pvalue)


def _numbers(found: ColumnDrift, profile: ColumnProfile, column: Column) -> ColumnDrift:
    before = np.array(profile.values)
    test = ks_2samp(column.values, before, method="asymp")
    edges = np.unique(np.quantile(before, np.linspace(0, 1, _BINS + 1)[1:-1]))
    counts = [
        np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1) for values in (before, column.values)
    ]
    beyond = np.mean((column.values < before[0]) | (column.values > before[-1]))
    return replace(
        found,
        psi=_psi(counts[0], counts[1]),
        test="KS",
        statistic=float(test.statistic),
        p_value=float(test.pvalue),
        unseen=float(beyond),
    )


def _categories(found: ColumnDrift, profile: ColumnProfile, column: Column) -> ColumnDrift:
    now, unseen = category_counts(column.values.tolist(), profile.categories)
    others = profile.rows - profile.missing - sum(profile.categories.values())
    table = _pooled(np.array([[*profile.categories.values(), others], [*now.values(), unseen]], np.float64))
    found = replace(found, unseen=unseen / len(column.values), test="chi2", psi=_psi(table[0], table[1]))
    if table.shape[1] < 2:
        return replace(found, statistic=0.0, p_value=1.0)
    test = chi2_contingency(table, correction=False)
    v = float(np.sqrt(test.statistic / table.sum()))
    return replace(found, statistic=v, p_value=float(test.pvalue))


def _pooled(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Counts [2, categories], with those together that are too rare for the test."""
    expected = table.sum(axis=0) * table.sum(axis=1, keepdims=True).min() / table.sum()
    rare = expected < _MIN_EXPECTED
    if not rare.any():
        return table
    pooled = np.column_stack([table[:, ~rare], table[:, rare].sum(axis=1)])
    return pooled[:, pooled.sum(axis=0) > 0]


def _psi(before: NDArray[Any], now: NDArray[Any]) -> float:
    """The population stability index, less its mean where nothing has changed; at least 0."""
    shares = [(counts + _HALF) / (counts + _HALF).sum() for counts in (np.asarray(before), np.asarray(now))]
    index = float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())
    by_chance = (len(shares[0]) - 1) * (1 / np.sum(before) + 1 / np.sum(now))
    return max(0.0, index - float(by_chance))
