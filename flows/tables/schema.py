"""
What a table looked like when a model was trained on it, and how next week's differs from that.

It is kept with the version, so that a column that is gone, renamed or of another type is told before anything is
trained, and what has only moved is told in the gate.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from flows.tables.columns import Column, Kind
from flows.tables.options import UnusableTable
from flows.tables.targets import Target

SCHEMA_FILE = Path("assets.extra", "schema.json")
"""in a SavedModel"""
_MAX_CATEGORIES = 1000
_MISSING_JUMP = 0.1
_CLASS_JUMP = 0.1
_NEW_SHARE = 0.01
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
    categories: tuple[str, ...] = ()
    """the most frequent, of a column of categories"""
    quantiles: tuple[float, ...] = ()
    """of a column of numbers: least, quartiles, most"""


@dataclass(frozen=True, slots=True)
class Schema:
    """A table, as a model was trained on it."""

    columns: tuple[ColumnSchema, ...]
    target: str
    task: str
    class_shares: dict[str, float]
    """empty for a regression"""
    rows: int

    @property
    def json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False, indent=1)

    @classmethod
    def read(cls, saved_model: Path) -> Schema | None:
        """That of a SavedModel; None where it keeps none that can be understood."""
        try:
            kept = json.loads((saved_model / SCHEMA_FILE).read_text("utf-8"))
            columns = tuple(
                ColumnSchema(**{**each, "categories": tuple(each["categories"]), "quantiles": tuple(each["quantiles"])})
                for each in kept.pop("columns")
            )
            return cls(columns=columns, **kept)
        except (OSError, ValueError, TypeError, KeyError):
            return None


def schema_of(frame: pd.DataFrame, columns: Sequence[Column], target: Target) -> Schema:
    """The schema of the rows whose target is known."""
    name = next(column.name for column in columns if column.kind is Kind.TARGET)
    shares = np.bincount(target.values) / len(frame) if target.class_names else ()
    return Schema(
        tuple(_column(frame[column.name], column) for column in columns if column.is_used),
        name,
        "classification" if target.class_names else "regression",
        {each: round(float(share), 6) for each, share in zip(target.class_names, shares, strict=False)},
        len(frame),
    )


def _column(values: pd.Series, column: Column) -> ColumnSchema:
    categories: tuple[str, ...] = ()
    quantiles: tuple[float, ...] = ()
    if column.is_numeric:
        quantiles = tuple(float(each) for each in values.quantile(list(_QUANTILES)).fillna(0.0))
    elif column.kind in (Kind.CATEGORY, Kind.BOOLEAN):
        categories = tuple(str(word) for word in values.value_counts().index[:_MAX_CATEGORIES])
    kind = "float32" if column.is_numeric else "string"
    share = round(column.missing_share, 6)
    return ColumnSchema(column.name, column.input, str(column.kind), kind, share, categories, quantiles)


def check_schema(before: Schema, frame: pd.DataFrame, now: Schema) -> tuple[str, ...]:
    """
    Hold a table against the one that the champion was trained on.

    Args:
        before: The champion's.
        frame: The table, with all its columns.
        now: The table's own.

    Returns:
        What has moved, a sentence each.

    Raises:
        UnusableTable: A column is gone, renamed or of another type, or the task is another.
    """
    if before.task != now.task:
        raise UnusableTable(
            f"{now.target!r} makes a {now.task} now, and the live version does {before.task}: add --task {before.task}"
        )
    by_name = {column.name: column for column in now.columns}
    new = [name for name in frame.columns if name not in {column.name for column in before.columns}]
    notes: list[str] = []
    for column in before.columns:
        if column.name not in frame.columns:
            raise UnusableTable(_gone(column, new, frame, now.target))
        if column.name in by_name:
            notes += _moved(column, by_name[column.name], frame[column.name])
        else:
            notes.append(f"{column.name!r} is not used any more")
    return (*notes, *_classes_moved(before, now))


def _gone(column: ColumnSchema, new: Sequence[str], frame: pd.DataFrame, target: str) -> str:
    alike = [name for name in new if name != target and _is_alike(column, frame[name])]
    renamed = f"; is it called {alike[0]!r} now?" if alike else ""
    return (
        f"The table has no column {column.name!r}, which the live version was trained with{renamed} "
        "Give it back its column, or train a model of another --name"
    )


def _is_alike(column: ColumnSchema, values: pd.Series) -> bool:
    is_numeric = pd.api.types.is_numeric_dtype(values)
    if is_numeric != (column.type == "float32"):
        return False
    known = values.dropna()
    if is_numeric:
        low, high = column.quantiles[1], column.quantiles[3]
        return bool(len(known)) and low <= known.median() <= high
    return bool(column.categories) and bool(known.isin(column.categories).mean() > 0.5)


def _moved(before: ColumnSchema, now: ColumnSchema, values: pd.Series) -> list[str]:
    if before.type != now.type:
        was, found = ("numbers", "texts") if before.type == "float32" else ("texts", "numbers")
        raise UnusableTable(
            f"The column {before.name!r} has {found} now, {_example(values, before.type)}, and the live version was "
            f"trained with {was}: correct the column, or train a model of another --name"
        )
    notes = []
    if abs(now.missing_share - before.missing_share) > _MISSING_JUMP:
        notes.append(
            f"{before.name!r} is missing in {now.missing_share:.0%} of the rows, before in {before.missing_share:.0%}"
        )
    if before.categories and len(before.categories) < _MAX_CATEGORIES:
        known = values.dropna().astype(str)
        unseen = known[~known.isin(before.categories)]
        if len(unseen) > _NEW_SHARE * max(len(known), 1):
            words = ", ".join(map(repr, unseen.value_counts().index[:3]))
            notes.append(
                f"{before.name!r} has new categories in {len(unseen) / len(known):.0%} of the rows, such as {words}"
            )
    return notes


def _example(values: pd.Series, wanted: str) -> str:
    known = values.dropna()
    if wanted == "float32":
        strange = known[pd.to_numeric(known, errors="coerce").isna()]
        known = strange if len(strange) else known
    return f"such as {known.iloc[0]!r}" if len(known) else "all missing"


def _classes_moved(before: Schema, now: Schema) -> list[str]:
    moved = {
        name: (before.class_shares.get(name, 0.0), now.class_shares.get(name, 0.0))
        for name in before.class_shares.keys() | now.class_shares.keys()
    }
    return [
        f"class {name!r} is {new:.0%} of the rows, before {old:.0%}"
        for name, (old, new) in sorted(moved.items())
        if abs(new - old) > _CLASS_JUMP
    ]
