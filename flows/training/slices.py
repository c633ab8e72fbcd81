"""Parts of the held-out rows, by class and by column, and how well each is answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flows.recipes import InvalidThresholds
from flows.tasks import Classification, Evaluation, MultiLabel
from flows.training.dataset import Dataset
from serving.repository.answers import as_text

_MAX_VALUES = 10
MISSING, OTHER = "missing", "other"


@dataclass(frozen=True, slots=True)
class Slice:
    """Some of the rows, and their mean score."""

    by: str
    """``class``, ``label``, or a column's name"""
    name: str
    rows: int
    score: float


def slices(evaluation: Evaluation, dataset: Dataset, columns: Sequence[str]) -> tuple[Slice, ...]:
    """
    The held-out rows by class or label, and by each of `columns`.

    A column with more than ten numbers or dates is cut in quarters, at the quartiles of these rows; of more than ten
    words, the most frequent stand by themselves. Missing values are a slice of their own.

    Raises:
        InvalidThresholds: There is no such column, or it has more than one value a row.
    """
    found = _by_class(evaluation)
    for column in columns:
        names, groups = cut(_column(dataset, column))
        found += _slices(column, names, groups, evaluation.scores)
    return tuple(found)


def _by_class(evaluation: Evaluation) -> list[Slice]:
    task, targets = evaluation.task, evaluation.targets
    if isinstance(task, Classification):
        return _slices("class", task.class_names, targets, evaluation.scores)
    if isinstance(task, MultiLabel):
        having = ((name, targets[:, number]) for number, name in enumerate(task.label_names))
        return [
            Slice("label", name, int(rows.sum()), float(evaluation.scores[rows].mean()))
            for name, rows in having
            if rows.any()
        ]
    return []


def _column(dataset: Dataset, name: str) -> NDArray[Any]:
    known = (*dataset.feature_names, *dataset.test.columns)
    if name not in known:
        listed = ", ".join(dict.fromkeys(known))
        raise InvalidThresholds(f"There is no column {name!r} to look at slices of; there are {listed}")
    values = dataset.test_column(name)
    if values[:1].size > 1:
        raise InvalidThresholds(f"The column {name!r} has more than one value a row, so it cannot be cut into slices")
    return values.reshape(-1)


def _slices(by: str, names: Sequence[str], groups: NDArray[np.int64], scores: NDArray[np.float64]) -> list[Slice]:
    rows = np.bincount(groups, minlength=len(names))
    total = np.bincount(groups, weights=scores, minlength=len(names))
    return [
        Slice(by, name, int(count), float(sum_ / count))
        for name, count, sum_ in zip(names, rows, total, strict=True)
        if count
    ]


def cut(values: NDArray[Any]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Names of the groups of a column [rows], and per row the number of its group."""
    import pandas

    series = pandas.Series(values)
    if values.dtype == object:
        series = pandas.Series([as_text(each) or None for each in values], dtype=object)
        if series.nunique() > _MAX_VALUES and (dates := _dates(series)) is not None:
            series = dates
    few = series.nunique() <= _MAX_VALUES
    names, groups = _values(series) if few else _words(series) if series.dtype == object else _quarters(series)
    missing = series.isna().to_numpy()
    return (*names, MISSING), np.where(missing, len(names), groups)


def _values(series: Any) -> tuple[list[str], NDArray[np.int64]]:
    import pandas

    groups, distinct = pandas.factorize(series, sort=True)
    return [f"{each:g}" if isinstance(each, float) else str(each) for each in distinct], groups


def _words(series: Any) -> tuple[list[str], NDArray[np.int64]]:
    """The most frequent words, and what is left of them."""
    import pandas

    frequent = series.value_counts().index[:_MAX_VALUES]
    groups = pandas.Categorical(series, categories=frequent).codes
    return [*frequent, OTHER], np.where(groups < 0, len(frequent), groups)


def _quarters(series: Any) -> tuple[list[str], NDArray[np.int64]]:
    """Quarters of numbers or dates, fewer where many are equal."""
    edges = series.quantile([0.25, 0.5, 0.75]).drop_duplicates()
    shown = [f"{edge:%Y-%m-%d}" if series.dtype.kind == "M" else f"{edge:g}" for edge in edges]
    between = [f"{low} to {high}" for low, high in pairwise(shown)]
    groups = edges.searchsorted(series.fillna(edges.iloc[0]))
    return [f"<= {shown[0]}", *between, f"> {shown[-1]}"], np.asarray(groups)


def _dates(series: Any) -> Any:
    """The dates that these texts are; None where one of them is no date in the form of ISO 8601."""
    import pandas

    try:
        return pandas.to_datetime(series, format="ISO8601", utc=True)
    except (ValueError, TypeError):
        return None
