"""
The profile of a version's training data, kept with it, which later rows are held against.

It is a file of the version like the others, and so part of its digest. A column keeps its values in order, or a
thousand of them at equal distances, and its categories with their counts; no row can be put together from it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from flows.drift.columns import Column, Kind

PROFILE_FILE = Path("assets.extra", "training_profile.json")
"""in a SavedModel"""
MAX_VALUES = 1000
MAX_CATEGORIES = 1000
_DIGITS = 9
"""tell every float32 from any other"""


@dataclass(frozen=True, slots=True)
class ColumnProfile:
    """One column of the training data, or of the answers to the held-out rows."""

    name: str
    kind: Kind
    rows: int
    missing: int
    values: tuple[float, ...] = ()
    """of a column of numbers, in order"""
    categories: Mapping[str, int] = field(default_factory=dict)
    """the most frequent of the others, and how often each came"""

    @property
    def missing_share(self) -> float:
        return self.missing / self.rows if self.rows else 0.0

    @classmethod
    def of(cls, column: Column) -> Self:
        """The profile of these values."""
        if column.kind is Kind.NUMBER:
            return cls(column.name, column.kind, column.rows, column.missing, values=_in_order(column.values))
        if column.kind is Kind.DATE:
            return cls(column.name, column.kind, column.rows, column.missing)
        counts = dict(Counter(column.values.tolist()).most_common(MAX_CATEGORIES))
        return cls(column.name, column.kind, column.rows, column.missing, categories=counts)


@dataclass(frozen=True, slots=True)
class Profile:
    """What a version was trained on, and what it answered to rows that it was not trained on."""

    columns: tuple[ColumnProfile, ...]
    """of the training rows"""
    answers: tuple[ColumnProfile, ...]
    """of the answers to the held-out rows"""
    output: str
    """the output that they are"""
    task: str
    class_names: tuple[str, ...] = ()
    classes: Mapping[str, int] = field(default_factory=dict)
    """the training targets of a classification: how often each class came"""
    feature_names: tuple[str, ...] = ()
    """of the values of a row, where there is but one input"""
    kinds: Mapping[str, Kind | None] = field(default_factory=dict)
    """what the texts of an input are, None for those that are compared by their length"""

    def write(self, saved_model: Path) -> None:
        """Keep it in a SavedModel."""
        path = saved_model / PROFILE_FILE
        path.parent.mkdir(exist_ok=True)
        kept = asdict(self)
        for column in (*kept["columns"], *kept["answers"]):
            column["values"] = [float(f"{value:.{_DIGITS}g}") for value in column["values"]]
        path.write_text(json.dumps(kept, ensure_ascii=False), "utf-8")

    @classmethod
    def read(cls, saved_model: Path) -> Profile | None:
        """That of a SavedModel; None where it keeps none, or none that can be understood."""
        try:
            kept: dict[str, Any] = json.loads((saved_model / PROFILE_FILE).read_text("utf-8"))
            for name in ("columns", "answers"):
                kept[name] = tuple(map(_column, kept[name]))
            for name in ("class_names", "feature_names"):
                kept[name] = tuple(kept[name])
            kept["kinds"] = {name: kind and Kind(kind) for name, kind in kept["kinds"].items()}
            return cls(**kept)
        except (OSError, ValueError, TypeError, KeyError):
            return None


def _column(kept: Mapping[str, Any]) -> ColumnProfile:
    return ColumnProfile(**{**kept, "kind": Kind(kept["kind"]), "values": _as_kept(kept["values"])})


def _in_order(values: NDArray[np.float64]) -> tuple[float, ...]:
    """All of them, or as many as are kept at equal distances."""
    ordered = np.sort(values)
    if len(ordered) > MAX_VALUES:
        at = (np.arange(MAX_VALUES) + 0.5) / MAX_VALUES
        ordered = np.quantile(ordered, at, method="inverted_cdf")
    return tuple(ordered.tolist())


def _as_kept(values: Sequence[float]) -> tuple[float, ...]:
    """The values of a file, as float32 has them."""
    return tuple(np.array(values, np.float32).astype(np.float64).tolist())


def category_counts(values: Sequence[str], known: Mapping[str, int]) -> tuple[dict[str, int], int]:
    """How often each of the known categories came, and how often any other."""
    counts = Counter(values)
    return {name: counts.pop(name, 0) for name in known}, sum(counts.values())
