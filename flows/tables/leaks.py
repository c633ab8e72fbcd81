"""Columns that give the target away: what is known only after it, or is the target under another name."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from flows.tables.targets import Target

_MAX_ROWS = 20_000
_MIN_ROWS = 30
_ALIKE = 0.9999
_GAP = 0.1


def leak_of(values: pd.Series, target: Target) -> str:
    """Why a column is taken to give the target away, or ""."""
    if len(values) < _MIN_ROWS:
        return ""
    some = np.sort(np.random.default_rng(0).permutation(len(values))[:_MAX_ROWS])
    values, truth = values.iloc[some].reset_index(drop=True), target.values[some]
    return _of_classes(values, truth) if target.class_names else _of_numbers(values, truth)


def _of_classes(values: pd.Series, classes: NDArray[np.int64]) -> str:
    codes = pd.factorize(values)[0]
    groups = pd.Series(classes).groupby(codes)
    present = len(np.unique(classes))
    if (groups.nunique() == 1).all() and groups.ngroups <= max(10, 2 * present):
        return "each of its values has one class only"
    missing = values.isna().to_numpy()
    if missing.any() and present == 2 and (pd.crosstab(missing, classes).to_numpy() == 0).sum() == 2:
        return "is missing for one class, and known for the other"
    if present == 2 and not missing.any() and pd.api.types.is_numeric_dtype(values) and len(values) >= 200:
        return _of_gap(values.to_numpy(np.float64), classes)
    return ""


def _of_gap(values: NDArray[np.float64], classes: NDArray[np.int64]) -> str:
    one, other = (values[classes == each] for each in np.unique(classes))
    gap = max(other.min() - one.max(), one.min() - other.max())
    return "a wide gap of its values parts the classes" if gap > _GAP * np.ptp(values) else ""


def _of_numbers(values: pd.Series, truth: NDArray[np.float64]) -> str:
    if not pd.api.types.is_numeric_dtype(values):
        return ""
    known = values.notna().to_numpy()
    if known.sum() < _MIN_ROWS or values.nunique() < _MIN_ROWS:
        return ""
    ranks = pd.Series(truth[known]).corr(values[known].reset_index(drop=True), method="spearman")
    return f"goes with the target, rank by rank ({ranks:.5f})" if abs(ranks) > _ALIKE else ""
