"""Makes a recipe of a table: read, understood, and given the model of `flows.tables.model`."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from flows.data.split import ByContent, ByGroup, ByTime, Split
from flows.tables import dates
from flows.tables.columns import Column, used
from flows.tables.inference import Wishes, infer_columns
from flows.tables.options import TableOptions, UnusableTable
from flows.tables.reading import Table, read_table
from flows.tables.recipe import TableRecipe
from flows.tables.schema import schema_of
from flows.tables.settings import DROPOUT, LEARNING_RATE, TUNABLE, WIDTH
from flows.tables.targets import Target, read_target
from flows.tasks import Classification, Regression, Task

if TYPE_CHECKING:
    import keras

_EPOCHS = 60
_BATCH_ROWS = ((400_000, 4096), (25_000, 1024), (4_000, 256))
_FEW_BATCH_ROWS = 64
_MIN_ROWS = 20


def table_recipe(options: TableOptions) -> TableRecipe:
    """
    Read a table, and make the recipe of a model of it; a file that is as it was is not read twice.

    Raises:
        UnusableTable: It cannot be trained on; the message says why and what to do.
    """
    try:
        changed = options.csv.stat().st_mtime_ns
    except OSError:
        changed = 0
    return _read(options, changed)


@functools.lru_cache(maxsize=1)
def _read(options: TableOptions, changed: int) -> TableRecipe:
    table = read_table(options.csv)
    _check_options(options, list(table.frame.columns))
    target = read_target(table.frame[options.target], options.task, options.positive)
    frame, target, notes = _known(table, target, options.target)
    splitting = _splitting(options)
    columns = infer_columns(frame, options.target, target, Wishes(options.drop, options.keep, splitting))
    examples = {column.input: _values(frame[column.name], column) for column in used(columns)}
    extras = {name: _extra(frame[name], name == options.time) for name in splitting}

    def build(
        inputs: Mapping[str, NDArray[Any]],
        learning_rate: float = LEARNING_RATE,
        width: int = WIDTH,
        dropout: float = DROPOUT,
    ) -> keras.Model:
        from flows.tables.model import TableModel

        return TableModel(used(columns), inputs, len(target.class_names), learning_rate, width, dropout)

    return TableRecipe(
        name=options.model,
        load=lambda: (examples, target.values, extras),
        build=build,
        task=_task(options, target),
        epochs=_EPOCHS,
        batch_size=next((batch for least, batch in _BATCH_ROWS if len(frame) >= least), _FEW_BATCH_ROWS),
        learning_rate=LEARNING_RATE,
        split=_split(options),
        missing_values=True,
        tunable=TUNABLE,
        columns=columns,
        notes=notes,
        schema=schema_of(frame, columns, target),
    )


def _check_options(options: TableOptions, columns: Sequence[str]) -> None:
    if options.task not in (None, "classification", "regression"):
        raise UnusableTable(f"--task is classification or regression, not {options.task!r}")
    named = [options.target, *options.drop, *options.keep, *filter(None, (options.time, options.group))]
    for name in named:
        if name not in columns:
            raise UnusableTable(f"{options.csv} has no column {name!r}{_near(name, columns)}")
    if options.target in named[1:]:
        raise UnusableTable(f"The target {options.target!r} cannot be dropped, kept, or split by")
    if options.time and options.group:
        raise UnusableTable("The rows are split by --time or by --group, not by both")


def _near(name: str, columns: Sequence[str]) -> str:
    import difflib

    lowered = {column.lower(): column for column in columns}
    close = difflib.get_close_matches(name.lower(), lowered, 1)
    listed = ", ".join(columns[:20]) + (", …" if len(columns) > 20 else "")
    return f": did you mean {lowered[close[0]]!r}?" if close else f": it has {listed}"


def _known(table: Table, target: Target, name: str) -> tuple[pd.DataFrame, Target, tuple[str, ...]]:
    """The rows whose target is known; they must be enough."""
    known, notes = target.is_known, table.notes
    if missing := int((~known).sum()):
        notes = (*notes, f"{missing} rows without a value of {name!r} that can be learned are left out")
    if known.sum() < _MIN_ROWS:
        raise UnusableTable(f"Only {int(known.sum())} rows have a value of {name!r}: at least {_MIN_ROWS} are needed")
    if not missing:
        return table.frame, target, notes
    return table.frame[known].reset_index(drop=True), replace(target, values=target.values[known]), notes


def _splitting(options: TableOptions) -> dict[str, str]:
    """The columns that decide which rows are held out, and how."""
    if options.time:
        return {options.time: "puts the rows in order; the newest are held out"}
    if options.group:
        return {options.group: "groups the rows; some groups are held out"}
    return {}


def _split(options: TableOptions) -> Split:
    if options.time:
        return ByTime(options.time, options.test_share)
    if options.group:
        return ByGroup(options.group, options.test_share)
    return ByContent(options.test_share)


def _task(options: TableOptions, target: Target) -> Task:
    if not target.class_names:
        return Regression((options.target,))
    return Classification(target.class_names, positive=options.positive)


def _values(values: pd.Series, column: Column) -> NDArray[Any]:
    """[rows] as clients send them: float32, NaN where missing, or texts, empty where missing."""
    if column.is_numeric:
        return np.asarray(values, np.float32)
    codes, words = pd.factorize(values)  # so that equal texts are one object
    return np.asarray(np.append(words.to_numpy(object), "")[codes])


def _extra(values: pd.Series, is_time: bool) -> NDArray[Any]:
    """A column to split by: numbers or texts; of times their order, int64 [rows]."""
    if not is_time:
        return np.asarray(values.map(str, na_action="ignore").fillna(""), object)
    if values.isna().any():
        raise UnusableTable(f"{int(values.isna().sum())} rows have no value of {values.name!r} to split by: fill it")
    if pd.api.types.is_numeric_dtype(values):
        return np.asarray(values.rank(method="dense"), np.int64)
    date_format = dates.format_of(values)
    if not date_format:
        raise UnusableTable(f"{values.name!r} has no times, but texts such as {values.iloc[0]!r}: name another column")
    days, seconds, _ = dates.parse(values.to_numpy(object), date_format)
    return np.asarray(days * 86400 + seconds).astype(np.int64)
