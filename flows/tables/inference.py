"""Finds out what each column of a table is, and whether the model should take it."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import pandas as pd

from flows.tables.columns import Column, Kind
from flows.tables.dates import FORMATS, format_of
from flows.tables.leaks import leak_of
from flows.tables.names import input_names
from flows.tables.options import UnusableTable
from flows.tables.targets import Target

_BOOLEANS = ({"true", "false"}, {"yes", "no"}, {"y", "n"}, {"t", "f"}, {"on", "off"})
_ID_NAME = re.compile(
    r"(^|[_\s.-])(id|uuid|guid|index|rownames?|row_?number)$|^(id|unnamed: ?\d+)$|[a-z]Id$|ID$", re.IGNORECASE
)
_MIN_ROWS_OF_ID = 20


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is asked of columns by name, whatever they are."""

    drop: Collection[str] = ()
    keep: Collection[str] = ()
    splitting: Mapping[str, str] = field(default_factory=dict)
    """those that decide which rows are held out, and how"""


def infer_columns(frame: pd.DataFrame, target_name: str, target: Target, wishes: Wishes) -> tuple[Column, ...]:
    """
    What becomes of each column, the target among them.

    Args:
        frame: Only rows whose target is known.
        target_name: The column that is to be predicted.
        target: Its values, of the same rows.
        wishes: What is asked of columns.

    Raises:
        UnusableTable: Nothing is left to learn from.
    """
    inputs = input_names([str(name) for name in frame.columns])
    found = []
    for name in frame.columns:
        missing = float(frame[name].isna().mean())
        if name == target_name:
            found.append(Column(name, Kind.TARGET, target.reason, False, missing, ""))
        else:
            found.append(_column(frame[name], target, wishes, missing, inputs[name]))
    if not any(column.is_used for column in found):
        left_out = ", ".join(f"{each.name!r} ({each.kind})" for each in found if each.kind is not Kind.TARGET)
        raise UnusableTable(f"No column is left to learn {target_name!r} from: bring one back by --keep, of {left_out}")
    return tuple(found)


def _column(values: pd.Series, target: Target, wishes: Wishes, missing: float, name: str) -> Column:
    column = str(values.name)
    kind, reason, date_format = _kind_of(column, values)
    is_used = kind not in (Kind.IDENTIFIER, Kind.CONSTANT)
    if column in wishes.keep:
        kind, reason, is_used = _kept(kind, values), f"{reason}; kept by --keep", True
    elif column in wishes.drop:
        reason, is_used = "left out by --drop", False
    elif column in wishes.splitting:
        reason, is_used = wishes.splitting[column], False
    elif is_used and (leak := leak_of(values, target)):
        kind, reason, is_used = Kind.LEAK, leak, False
    is_numeric = pd.api.types.is_numeric_dtype(values)
    return Column(column, kind, reason, is_used, missing, name, is_numeric, date_format)


def _kept(kind: Kind, values: pd.Series) -> Kind:
    if kind in (Kind.IDENTIFIER, Kind.CONSTANT):
        return Kind.NUMBER if pd.api.types.is_numeric_dtype(values) else Kind.CATEGORY
    return kind


def _kind_of(name: str, values: pd.Series) -> tuple[Kind, str, str]:
    known = values.dropna()
    distinct = known.nunique()
    if not len(known):
        return Kind.CONSTANT, "has no values", ""
    if distinct == 1 and len(known) == len(values):
        return Kind.CONSTANT, f"is always {known.iloc[0]!r}", ""
    if pd.api.types.is_numeric_dtype(values):
        return _number_kind(name, known, distinct)
    return _text_kind(name, known, distinct)


def _number_kind(name: str, known: pd.Series, distinct: int) -> tuple[Kind, str, str]:
    is_whole = bool((known == known.round()).all())
    if is_whole and distinct == len(known) >= _MIN_ROWS_OF_ID:
        if known.max() - known.min() == len(known) - 1:
            return Kind.IDENTIFIER, "numbers the rows", ""
        if _ID_NAME.search(name):
            return Kind.IDENTIFIER, "is different in every row, and called like an identifier", ""
    low, high = known.min(), known.max()
    return Kind.NUMBER, f"{distinct} different numbers from {low:.6g} to {high:.6g}", ""


def _text_kind(name: str, known: pd.Series, distinct: int) -> tuple[Kind, str, str]:
    if distinct <= 2 and {str(word).lower() for word in known.unique()} in _BOOLEANS:
        return Kind.BOOLEAN, " or ".join(sorted(map(str, known.unique()))), ""
    if date_format := format_of(known):
        return Kind.DATE, f"{FORMATS[date_format].shown}, such as {known.iloc[0]}", date_format
    words = float(known.iloc[:10_000].str.count(r"\S+").mean())
    share = distinct / len(known)
    if words >= 3 and share > 0.1 and distinct > 20:
        return Kind.TEXT, f"{words:.0f} words a row", ""
    if share > 0.9 and len(known) >= _MIN_ROWS_OF_ID:
        return Kind.IDENTIFIER, f"{distinct} different words in {len(known)} rows", ""
    return Kind.CATEGORY, f"{distinct} different words", ""
