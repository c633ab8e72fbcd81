"""What was measured, and what it may be at most?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Measurement:
    """One number; `limit` is what it may be at most, None where it is only told."""

    what: str
    value: float
    unit: str
    limit: float | None = None


def show(measurements: Sequence[Measurement]) -> None:
    """Print a table."""
    table = Table("measured", "value", "at most", box=None)
    for each in measurements:
        limit = "" if each.limit is None else f"{each.limit:g} {each.unit}"
        table.add_row(each.what, f"{each.value:.2f} {each.unit}", limit)
    Console(width=120).print(table)
