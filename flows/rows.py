"""How do the rows of a command line become what a model is asked, and its answers JSON?"""

from __future__ import annotations

import json
import sys
from typing import Any

import typer

from serving.errors import InvalidRequest

_MAX_EXAMPLE = 40


def parse_rows(rows: list[str]) -> list[Any]:
    if rows == ["-"]:
        try:
            parsed = json.load(sys.stdin)
        except ValueError as exc:
            raise InvalidRequest(f"Standard input is no JSON ({exc}): write [[5.1, 3.5, 1.4, 0.2]]") from exc
        if not isinstance(parsed, list) or not parsed:
            raise InvalidRequest("Standard input holds no rows: write [[5.1, 3.5, 1.4, 0.2]]")
        return parsed
    found = []
    for row in rows:
        if row.startswith("--"):
            raise typer.BadParameter(f"there is no option {row}")
        try:
            found.append([float(value) for value in row.split(",")])
        except ValueError as exc:
            raise InvalidRequest(f"Row {row!r} is not a list of numbers: write it as 5.1,3.5,1.4,0.2") from exc
    return found


def plain(array: Any) -> Any:
    """An array as JSON can carry it; strings as text."""
    values = array.tolist()

    def decoded(value: Any) -> Any:
        if isinstance(value, list):
            return [decoded(each) for each in value]
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value

    return decoded(values)


def written(rows: list[Any]) -> str:
    """The first of `rows` as the command line takes it; empty where it is too long, or no row of numbers."""
    if not rows or not isinstance(rows[0], list) or not all(isinstance(value, float | int) for value in rows[0]):
        return ""
    row = ",".join(f"{value:.6g}" for value in rows[0])
    return row if len(row) <= _MAX_EXAMPLE else ""
