"""A recipe that was made from a table."""

from __future__ import annotations

from dataclasses import dataclass

from flows.recipes import Recipe
from flows.tables.columns import Column, shown
from flows.tables.schema import Schema


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRecipe(Recipe):
    """A recipe that knows the columns that it was made from."""

    columns: tuple[Column, ...]
    """what became of each"""
    notes: tuple[str, ...]
    """what was decided when the table was read"""
    schema: Schema

    def described(self, width: int) -> str:
        """What was decided, and what became of each column, for a terminal of this width."""
        return "\n".join([f"the columns of {self.name}", *self.notes, shown(self.columns, width)])
