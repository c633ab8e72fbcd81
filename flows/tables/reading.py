"""
Reads a table from a CSV or Parquet file, whatever its separator, encoding and words for "missing" are.

What was decided on the way is told, because a wrong guess here would be learned by the model.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from flows.tables.options import UnusableTable

_SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
_SAMPLE_BYTES = 1 << 20
MISSING_WORDS = [*pa.csv.ConvertOptions().null_values, "None", "none", "NONE"]
"""what stands for a missing value in a CSV file, beside the empty string"""
_MISSING_NUMBERS = {"?", "-", "--", ".", "*", "unknown", "missing", "n.a.", "na", "none", "nil"}
"""in a column of numbers these are missing too"""


@dataclass(frozen=True, slots=True)
class Table:
    """Columns of float64 (NaN where missing), bool, or text (None where missing), and what was decided."""

    frame: pd.DataFrame
    notes: tuple[str, ...]


def read_table(path: Path) -> Table:
    """
    Read a CSV or a Parquet file; which one it is, its first bytes say.

    Raises:
        UnusableTable: There is none, or it is no table; the message says where and what to do.
    """
    try:
        with path.open("rb") as file:
            start = file.read(_SAMPLE_BYTES)
    except OSError as exc:
        raise UnusableTable(f"{path} cannot be read: {exc.strerror}; name a CSV or Parquet file") from exc
    table, notes = _read_parquet(path) if start[:4] == b"PAR1" else _read_csv(path, start)
    if not table.num_rows:
        raise UnusableTable(f"{path} has no rows below its header: name a file with data")
    table = table.rename_columns([name.strip() for name in table.column_names])
    _check_names(path, table.column_names)
    columns = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        columns[name] = _plain(name, column, notes)
    return Table(pd.DataFrame(columns), tuple(notes))


def record_batches(path: Path, rows: int) -> Iterator[pa.RecordBatch]:
    """
    A file of any size in parts of at most so many rows; of a CSV file all values are texts, as they are written.

    Raises:
        UnusableTable: There is none, or it is no table.
    """
    try:
        with path.open("rb") as file:
            start = file.read(_SAMPLE_BYTES)
        if start[:4] == b"PAR1":
            yield from pa.parquet.ParquetFile(path).iter_batches(rows)
            return
        for batch in _csv_batches(path, start):
            for at in range(0, batch.num_rows, rows):
                yield batch.slice(at, rows)
    except (OSError, pa.ArrowException) as exc:
        raise UnusableTable(f"{path} cannot be read: {_first_line(exc)}; name a CSV or Parquet file") from exc


def _csv_batches(path: Path, start: bytes) -> Iterator[pa.RecordBatch]:
    encoding, _ = _encoding(path, start)
    sample = start.decode(encoding, "ignore").lstrip("\ufeff")
    if not sample.strip():
        raise UnusableTable(f"{path} is empty: name a file with a header and rows")
    separator = _separator(sample)
    header = next(csv.reader(io.StringIO(sample), delimiter=separator))
    yield from pa.csv.open_csv(
        path,
        pa.csv.ReadOptions(encoding=encoding, block_size=1 << 22),
        pa.csv.ParseOptions(delimiter=separator, newlines_in_values=True),
        pa.csv.ConvertOptions(column_types=dict.fromkeys(header, pa.string()), strings_can_be_null=False),
    )


def _read_parquet(path: Path) -> tuple[pa.Table, list[str]]:
    try:
        return pa.parquet.read_table(path), []
    except (pa.ArrowException, OSError) as exc:
        raise UnusableTable(f"{path} is no readable Parquet file: {_first_line(exc)}") from exc


def _read_csv(path: Path, start: bytes) -> tuple[pa.Table, list[str]]:
    encoding, notes = _encoding(path, start)
    sample = start.decode(encoding, "ignore").lstrip("\ufeff")
    if not sample.strip():
        raise UnusableTable(f"{path} is empty: name a file with a header and rows")
    separator = _separator(sample)
    if separator != ",":
        notes.append(f"the columns are separated by {_SEPARATORS[separator]}")
    header = next(csv.reader(io.StringIO(sample), delimiter=separator))
    short: list[Any] = []

    def told(row: Any) -> str:
        short.append(row)
        return "error"

    try:
        return (
            pa.csv.read_csv(
                path,
                pa.csv.ReadOptions(encoding=encoding, block_size=1 << 24),
                pa.csv.ParseOptions(delimiter=separator, newlines_in_values=True, invalid_row_handler=told),
                pa.csv.ConvertOptions(
                    column_types=dict.fromkeys([name.lstrip("\ufeff") for name in header], pa.string()),
                    null_values=MISSING_WORDS,
                    strings_can_be_null=True,
                ),
            ),
            notes,
        )
    except pa.ArrowException as exc:
        if short:
            raise _ragged(path, encoding, separator, len(header)) from exc
        raise UnusableTable(f"{path} is no readable table: {_first_line(exc)}; correct the file") from exc


def _ragged(path: Path, encoding: str, separator: str, expected: int) -> UnusableTable:
    """What is wrong with the first line that has too few or too many values."""
    with path.open(encoding=encoding, newline="") as file:
        reader = csv.reader(file, delimiter=separator)
        for row in reader:
            if row and len(row) != expected:
                return UnusableTable(
                    f"Line {reader.line_num} of {path} has {len(row)} values, and the header {expected}: "
                    "correct the line, or put values that contain the separator in quotes"
                )
    return UnusableTable(f"{path} has lines with another number of values than its header: correct them")


def _encoding(path: Path, start: bytes) -> tuple[str, list[str]]:
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16", ["the file is UTF-16"]
    if _is(path, "utf-8"):
        return "utf-8", []
    if _is(path, "cp1252"):
        return "cp1252", ["the file is not UTF-8, and was read as Windows-1252 (Western European)"]
    raise UnusableTable(f"{path} is neither UTF-8 nor Windows-1252 text: save it as UTF-8")


def _is(path: Path, encoding: str) -> bool:
    try:
        with path.open(encoding=encoding) as file:
            while file.read(1 << 22):
                pass
    except UnicodeDecodeError:
        return False
    return True


def _separator(sample: str) -> str:
    """The one that cuts the header into most columns, the first of those that do."""
    header = next((line for line in sample.splitlines() if line.strip()), "")
    return max(_SEPARATORS, key=lambda each: len(next(csv.reader([header], delimiter=each), [])))


def _check_names(path: Path, names: Sequence[str]) -> None:
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UnusableTable(f"{path} has {_count(names, twice[0])} columns called {twice[0]!r}: give each its own name")
    if "" in names:
        raise UnusableTable(f"Column {list(names).index('') + 1} of {path} has no name: give it one in the first line")


def _count(names: Sequence[str], name: str) -> int:
    return list(names).count(name)


def _plain(name: str, column: pa.ChunkedArray, notes: list[str]) -> Any:
    """A column as numbers, booleans or texts."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if pa.types.is_boolean(kind):
        return column.to_pandas().map({True: "true", False: "false"}).astype("str")
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return _finite(name, column.cast(pa.float64()), notes)
    if pa.types.is_null(kind):
        return pd.Series(np.full(len(column), np.nan))
    if pa.types.is_temporal(kind):
        column = column.cast(pa.timestamp("s"), safe=False) if not pa.types.is_time(kind) else column
        return column.cast(pa.string()).to_pandas().astype("str")
    try:
        texts = pc.utf8_trim_whitespace(column.cast(pa.string()))
    except pa.ArrowException:
        return column.to_pandas().map(repr).astype("str")
    return _numbers(name, texts, notes)


def _numbers(name: str, texts: pa.ChunkedArray, notes: list[str]) -> Any:
    """Texts as numbers where all of them are; leading zeros tell codes, such as postcodes."""
    texts = pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)
    if pc.any(pc.match_substring_regex(texts, r"^[+-]?0\d")).as_py():
        return texts.to_pandas().astype("str")
    for found, note in _readings(texts):
        try:
            numbers = _finite(name, found.cast(pa.float64()), notes)
        except pa.ArrowException:
            continue
        if note:
            notes.append(f"{name!r}: {note}")
        return numbers
    return texts.to_pandas().astype("str")


def _readings(texts: pa.ChunkedArray) -> Any:
    """The ways in which texts may be numbers, with what is told of each."""
    yield texts, ""
    if _share(pc.match_substring_regex(texts, r"^[+-]?\d+(,\d+)?$")) == 1:
        yield pc.replace_substring(texts, ",", "."), "the decimal comma was read as a point"
    words = pc.unique(texts.filter(pc.invert(pc.match_substring_regex(texts, r"^[+-]?\.?\d")))).to_pylist()
    strange = [word for word in words if word is not None]
    if 0 < len(strange) <= 3 and all(word.lower() in _MISSING_NUMBERS for word in strange):
        is_word = pc.is_in(texts, pa.array(strange, pa.string()))
        known = pc.if_else(is_word, pa.scalar(None, pa.string()), texts)
        yield known, f"{', '.join(map(repr, strange))} counts as missing"


def _share(found: pa.ChunkedArray) -> float:
    return float(pc.mean(found.cast(pa.int8())).as_py() or 0)


def _finite(name: str, column: pa.ChunkedArray, notes: list[str]) -> pd.Series:
    numbers = column.to_pandas().astype(np.float64)
    if infinite := int(np.isinf(numbers).sum()):
        notes.append(f"{name!r}: {infinite} infinite values count as missing")
        numbers = numbers.where(~np.isinf(numbers))
    return numbers


def _first_line(exc: BaseException) -> str:
    return str(exc).strip().partition("\n")[0][:200]
