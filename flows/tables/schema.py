"""
What a table looked like when a model was trained on it; it is kept with the version.

Next week's table is held against it: see `flows.tables.changes`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.tables.columns import Column, Kind

if TYPE_CHECKING:
    import pandas as pd

    from flows.tables.targets import Target

SCHEMA_FILE = Path("assets.extra", "schema.json")
"""in a SavedModel"""
MAX_CATEGORIES = 1000
_QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, slots=True)
class ColumnSchema:
    """One column that the model takes."""

    name: str
    input: str
    kind: str
    type: str
    """float32 or string"""
    missing_share: float
    categories: Mapping[str, float] = field(default_factory=dict)
    """the most frequent of a column of categories, with their shares of the known values"""
    quantiles: tuple[float, ...] = ()
    """of a column of numbers: least, quartiles, most"""


@dataclass(frozen=True, slots=True)
class Schema:
    """A table, as a model was trained on it."""

    columns: tuple[ColumnSchema, ...]
    target: str
    task: str
    class_shares: Mapping[str, float]
    """empty for a regression"""
    rows: int
    left_out: tuple[str, ...] = ()
    """columns that the model does not take"""

    def write(self, saved_model: Path) -> None:
        """Keep it in a SavedModel."""
        path = saved_model / SCHEMA_FILE
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(asdict(self), ensure_ascii=False, indent=1), "utf-8")

    @classmethod
    def read(cls, saved_model: Path) -> Schema | None:
        """That of a SavedModel; None where it keeps none, or none that can be understood."""
        try:
            kept: dict[str, Any] = json.loads((saved_model / SCHEMA_FILE).read_text("utf-8"))
            columns = tuple(
                ColumnSchema(**{**each, "quantiles": tuple(each["quantiles"])}) for each in kept.pop("columns")
            )
            return cls(columns, left_out=tuple(kept.pop("left_out")), **kept)
        except (OSError, ValueError, TypeError, KeyError):
            return None


def schema_of(frame: pd.DataFrame, columns: Sequence[Column], target: Target) -> Schema:
    """The schema of the rows whose target is known."""
    name = next(column.name for column in columns if column.kind is Kind.TARGET)
    counts = np.bincount(target.values, minlength=len(target.class_names)).tolist() if target.class_names else []
    return Schema(
        tuple(_column(frame[column.name], column) for column in columns if column.is_used),
        name,
        "classification" if target.class_names else "regression",
        {each: round(count / len(frame), 6) for each, count in zip(target.class_names, counts, strict=True)},
        len(frame),
        tuple(column.name for column in columns if not column.is_used and column.kind is not Kind.TARGET),
    )


def _column(values: pd.Series, column: Column) -> ColumnSchema:
    categories: dict[str, float] = {}
    quantiles: tuple[float, ...] = ()
    if column.is_numeric:
        quantiles = tuple(float(each) for each in values.quantile(list(_QUANTILES)).fillna(0.0))
    elif column.kind in (Kind.CATEGORY, Kind.BOOLEAN):
        shares = values.value_counts(normalize=True).iloc[:MAX_CATEGORIES]
        categories = {str(word): round(float(share), 6) for word, share in shares.items()}
    kind = "float32" if column.is_numeric else "string"
    share = round(column.missing_share, 6)
    return ColumnSchema(column.name, column.input, str(column.kind), kind, share, categories, quantiles)
