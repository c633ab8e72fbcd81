"""Rows written as ``name=value``, and the names and the missing values that a model takes."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from flows.prediction.rows import Expected, value_of, written
from flows.tables.schema import Schema
from serving.protocol.errors import InvalidRequest
from serving.repository.answers import as_text
from serving.repository.stamp import GoldenRows
from serving.repository.store import Repository

_NAMED = re.compile(r"[^=,]+=")
_MAX_EXAMPLE = 60


def are_named(rows: Sequence[str], expected: Expected) -> bool:
    """Whether these are values of one row with names, and no texts for a model that takes a single text."""
    takes_texts = len(expected.inputs) == 1 and next(iter(expected.inputs.values())).dtype == object
    return not takes_texts and all(_NAMED.match(row) for row in rows)


def from_named(rows: Sequence[str], expected: Expected) -> tuple[dict[str, Any], tuple[str, ...]]:
    """
    The inputs of one row from values such as ``age=42``, and the names that were not given, which count as missing.

    Raises:
        InvalidRequest: A name is unknown or given twice, a value does not fit, or one is missing that has to be there.
    """
    pairs = [row.split("=", 1) for row in rows]
    given = {name.strip(): value for name, value in pairs}
    names = names_taken(expected)
    if len(given) < len(pairs):
        raise InvalidRequest("A name is given twice: give each value once")
    if unknown := sorted(given.keys() - set(names)):
        raise InvalidRequest(f"{expected.model!r} has no column {unknown[0]!r}; it has {', '.join(names)}")
    absent = tuple(name for name in names if not given.get(name, ""))
    if absent and not expected.takes_missing:
        raise InvalidRequest(f"{expected.model!r} needs a value for {', '.join(absent)}: add {absent[0]}=VALUE")
    return bound({name: [given.get(name, "")] for name in names}, expected), absent


def names_taken(expected: Expected) -> tuple[str, ...]:
    """The names of the values of a row: the columns, the inputs, or the features of the only input."""
    if expected.columns:
        return tuple(expected.columns)
    if len(expected.inputs) == 1 and expected.features:
        return tuple(expected.features)
    return tuple(expected.inputs)


def bound(columns: Mapping[str, Sequence[str]], expected: Expected, before: int = 0) -> dict[str, Any]:
    """
    The inputs of rows whose values are texts, by the names of `names_taken`; an empty one is missing.

    Args:
        columns: Texts of the same number of rows, by name.
        expected: What the model takes.
        before: How many rows came before, as they are counted in messages.

    Raises:
        InvalidRequest: A value does not fit.
    """
    if len(expected.inputs) == 1 and set(columns) != set(expected.inputs) and not expected.columns:
        ((name, info),) = expected.inputs.items()
        table = [_values(column, values, info, before) for column, values in columns.items()]
        return {name: np.stack(table, axis=1)}
    return {
        (name := expected.columns.get(column, column)): _shaped(
            _values(column, values, expected.inputs[name], before), expected.inputs[name]
        )
        for column, values in columns.items()
    }


def _values(column: str, values: Sequence[str], info: Any, before: int) -> Any:
    if info.dtype == object:
        return np.array([value.encode() for value in values], object)
    may_miss = info.dtype is None or info.dtype.kind in "fV"
    if may_miss:
        with suppress(ValueError):  # quick; who is at fault is found below
            return np.array([value or "nan" for value in values]).astype(np.float64).astype(info.dtype or np.float32)
    found = [
        math.nan if may_miss and not value else value_of(value, info, f"Row {number}, {column}: ")
        for number, value in enumerate(values, before + 1)
    ]
    return np.array(found, info.dtype)


def _shaped(values: Any, info: Any) -> Any:
    """[rows, 1] where the input has a column."""
    return values[:, None] if info.shape is not None and len(info.shape) == 2 else values


def schema_of(repository: Repository, model: str, version: int | None) -> Schema | None:
    """What the table looked like that a published version was trained on."""
    if version is None or version not in repository.versions(model):
        return None
    return Schema.read(repository.path(model, version))


def has_missing(golden: GoldenRows) -> bool:
    """Whether a number is missing in the rows that a version was judged with, so that it takes that."""
    return any(array.dtype.kind == "f" and bool(np.isnan(array).any()) for array in golden.inputs.values())


def example(repository: Repository, model: str, version: int) -> str:
    """A row for a version, as the command line takes it; empty where none is known, or it is too long."""
    golden, schema = repository.stamp(model, version).golden, schema_of(repository, model, version)
    if golden is not None and (schema is not None or len(golden.inputs) > 1):
        columns = {column.name: column.input for column in schema.columns} if schema else {}
        return _named_example(golden, columns or {name: name for name in golden.inputs}, schema is not None)
    return written(golden)


def _named_example(golden: GoldenRows, columns: Mapping[str, str], may_be_cut: bool) -> str:
    shown: list[str] = []
    for column, name in columns.items():
        if name not in golden.inputs or golden.inputs[name].size != len(golden):
            return ""
        text = _text(golden.inputs[name].reshape(-1)[0])
        pair = shlex.quote(f"{column}={text}")
        if len(" ".join([*shown, pair])) > _MAX_EXAMPLE:
            if may_be_cut:
                continue
            return ""
        if text:
            shown.append(pair)
    return " ".join(shown)


def _text(value: Any) -> str:
    if isinstance(value, str | bytes):
        return as_text(value)
    return "" if value != value else f"{value:.6g}"
