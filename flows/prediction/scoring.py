"""
Predicts for the rows of a file, of any size: batch by batch, each written before the next is read.

What is written has the columns of the file as they were, and the model's answers beside them.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from flows.console import progress
from flows.prediction.asking import STANDARD_INPUT, Query, Session, connected
from flows.prediction.named_values import bound, names_taken
from flows.prediction.rows import Expected
from flows.settings import Settings
from flows.tables.options import UnusableTable
from flows.tables.reading import MISSING_WORDS, record_batches
from serving.protocol.errors import InvalidRequest
from serving.repository.answers import as_text

_BATCH_ROWS = 4096


@dataclass(frozen=True, slots=True)
class Scored:
    """What came of it."""

    model: str
    version: int
    rows: int
    out: str


def score(settings: Settings, query: Query, csv: Path, out: str) -> Scored:
    """
    Ask one version for all rows of a file.

    Args:
        settings: Which server to ask; over gRPC, as rows are many.
        query: Which model.
        csv: CSV or Parquet.
        out: The file to write, Parquet where it is called so; ``-`` for standard output.

    Raises:
        UnusableTable: The file cannot be read, or lacks a column.
        InvalidRequest: A value does not fit; the message names row and column.
        ServingError: The server refuses, or does not answer.
    """
    rows = 0
    with connected(settings, replace(query, grpc=True)) as (session, expected), _writer(out) as write:
        session = session.pinned()
        for batch in record_batches(csv, _BATCH_ROWS):
            write(_answered(session, expected, batch, rows, csv))
            rows += batch.num_rows
            progress.step(f"{rows:,} rows scored")
    return Scored(query.model, session.metadata.version, rows, out)


def _answered(session: Session, expected: Expected, batch: pa.RecordBatch, before: int, csv: Path) -> pa.Table:
    names = _columns(expected, batch, csv)
    texts = {name: _texts(batch.column(name)) if name in batch.schema.names else [""] * len(batch) for name in names}
    inputs = bound(texts, expected, before)
    _check_finite(inputs, expected, csv)
    prediction, classes = session.ask(inputs)
    table = pa.Table.from_batches([batch])
    for name, values in _answers(prediction.outputs, classes).items():
        free = name if name not in table.column_names else f"{name}_predicted"
        table = table.append_column(free, values)
    return table


def _columns(expected: Expected, batch: pa.RecordBatch, csv: Path) -> tuple[str, ...]:
    """The columns that the model takes; without names, all columns that are as many as a row has values."""
    names, there = names_taken(expected), batch.schema.names
    absent = [name for name in names if name not in there]
    if not absent or (expected.takes_missing and len(absent) < len(names)):
        return names
    if len(expected.inputs) == 1:
        shape = next(iter(expected.inputs.values())).shape
        if shape is not None and len(shape) == 2 and shape[1] in (-1, len(there)):
            return tuple(there)
    raise UnusableTable(f"{csv} has no column {absent[0]!r}, which {expected.model!r} takes: it has {', '.join(there)}")


def _texts(column: pa.Array) -> list[str]:
    """Values as they would be written; the words for missing as nothing."""
    return [_text(value) for value in column.to_pylist()]


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.12g}"
    text = str(value).strip()
    return "" if text in MISSING_WORDS else text


def _check_finite(inputs: dict[str, Any], expected: Expected, csv: Path) -> None:
    if expected.takes_missing:
        return
    for name, array in inputs.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise InvalidRequest(f"{csv} has missing values for {name!r}, and {expected.model!r} takes none: fill them")


def _answers(outputs: dict[str, Any], classes: list[dict[str, Any]]) -> dict[str, pa.Array]:
    """A column for each value of an answer, those of the classes first."""
    found = {name: pa.array([each[name] for each in classes]) for name in ("class", "probability") if classes}
    for name, array in outputs.items():
        flat = array.reshape(len(array), -1)
        for number, values in enumerate(flat.T):
            column = name if flat.shape[1] == 1 else f"{name}_{number}"
            found[column] = pa.array([as_text(each) for each in values] if values.dtype == object else values)
    return found


@contextmanager
def _writer(out: str) -> Iterator[Any]:
    """A function that appends a table; a file appears under its name when all of it is written."""
    with ExitStack() as open_files:
        writers: list[Any] = []
        partial = Path(f"{out}.part")
        if out == STANDARD_INPUT:
            sink: Any = open_files.enter_context(os.fdopen(os.dup(sys.stdout.fileno()), "wb"))
        else:
            sink = open_files.enter_context(partial.open("wb"))
            open_files.callback(partial.unlink, missing_ok=True)

        def write(table: pa.Table) -> None:
            if not writers:
                make = pa.parquet.ParquetWriter if out.endswith((".parquet", ".pq")) else pa.csv.CSVWriter
                writers.append(make(sink, table.schema))
            (writers[0].write_table if hasattr(writers[0], "write_table") else writers[0].write)(table)

        yield write
        for writer in writers:
            writer.close()
        sink.flush()
        if out != STANDARD_INPUT:
            partial.replace(out)
