"""What a column of a table is, and what becomes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What a column is taken for."""

    NUMBER = "number"
    BOOLEAN = "boolean"
    CATEGORY = "category"
    DATE = "date"
    TEXT = "text"
    IDENTIFIER = "identifier"
    CONSTANT = "constant"
    LEAK = "gives the target away"
    TARGET = "target"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table."""

    name: str
    """as the table has it"""
    kind: Kind
    reason: str
    """why it is taken for that, or why it is left out"""
    is_used: bool
    missing_share: float
    input: str
    """the name of the model's input that takes it"""
    is_numeric: bool = False
    """whether clients send float32, NaN where missing; else strings, empty where missing"""
    date_format: str = ""
    """one of `flows.tables.dates.FORMATS`, of a date"""


def used(columns: Sequence[Column]) -> tuple[Column, ...]:
    """The columns that the model takes."""
    return tuple(column for column in columns if column.is_used)


def shown(columns: Sequence[Column], width: int) -> str:
    """What became of each column and why, as a table for a terminal of this width."""
    import io

    from rich.console import Console
    from rich.table import Table

    table = Table("column", "is", "", "why", box=None, pad_edge=False)
    for column in columns:
        renamed = f"; clients call it {column.input}" if column.is_used and column.input != column.name else ""
        missing = f"; {column.missing_share:.1%} missing" if column.missing_share else ""
        fate = "target" if column.kind is Kind.TARGET else "used" if column.is_used else "left out"
        table.add_row(column.name, str(column.kind), fate, f"{column.reason}{missing}{renamed}")
    text = io.StringIO()
    Console(file=text, width=width, highlight=False, markup=False).print(table)
    return text.getvalue().rstrip()
