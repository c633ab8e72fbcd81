"""
Converts rows that a person has written into the inputs of a signature.

They are checked against the signature before a server is asked: number of values, type and shape, and that every number
is one. A message names the row and, where it is known, the feature.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.protocol.errors import InvalidRequest
from serving.protocol.signature import TensorInfo
from serving.repository.stamp import GoldenRows

_MAX_EXAMPLE = 40
_MAX_NAMED = 8
_ANY_ROW = "5.1,3.5,1.4,0.2"
_ACCEPTED_KINDS = {"b": "b", "i": "iu", "u": "iu", "f": "iuf", "V": "iuf", "c": "iufc"}
_ENVELOPES = ("instances", "inputs")


@dataclass(frozen=True, slots=True)
class Expected:
    """The inputs that a model takes, as far as they are known."""

    model: str
    inputs: Mapping[str, TensorInfo]
    features: Sequence[str] = ()
    """the names of a row's values; empty where they are not known"""
    example: str = ""
    """a row as the command line takes it"""
    columns: Mapping[str, str] = field(default_factory=dict)
    """of a table, the input that takes each column; empty for other models"""
    takes_missing: bool = False
    """whether NaN and the empty string stand for values that are missing"""

    def row_of(self, length: int) -> str:
        """A row of so many values, in words."""
        values = f"{length} value{'' if length == 1 else 's'}"
        if len(self.features) != length or length > _MAX_NAMED:
            return values
        return f"{values} ({', '.join(self.features)})"

    def name_of(self, number: int, length: int) -> str:
        """The name of a value by its number, from 0, in a row of so many."""
        known = len(self.features) == length
        return self.features[number] if known else f"value {number + 1}"

    def written(self, length: int = -1) -> str:
        """An example of a row."""
        if self.example and length in (-1, self.example.count(",") + 1):
            return self.example
        return ",".join(map(str, range(1, length + 1))) if 1 < length <= _MAX_NAMED else _ANY_ROW


def check_readable(rows: Sequence[str]) -> None:
    """
    Refuse what no model takes, before a server is asked.

    Raises:
        InvalidRequest: A row has numbers, and something between them that is none.
    """
    for number, row in enumerate(rows, 1):
        if "=" in row:
            continue
        values = row.split(",")
        unreadable = [value for value in values if not _is_number(value)]
        if unreadable and len(unreadable) < len(values) and not row.endswith(","):
            raise InvalidRequest(
                f"Row {number}, value {values.index(unreadable[0]) + 1}: {unreadable[0]!r} is no number; "
                f"write a row as {_ANY_ROW}"
            )


def from_arguments(rows: Sequence[str], expected: Expected) -> dict[str, Any]:
    """
    The input of a signature with one, from rows such as ``5.1,3.5,1.4,0.2``.

    Single values are one row where a row has as many; a signature without rows takes all values as they come.

    Raises:
        InvalidRequest: They do not fit.
    """
    if len(expected.inputs) != 1:
        names = ", ".join(sorted(expected.inputs))
        named = expected.example or " ".join(f"{name}=VALUE" for name in sorted(expected.inputs))
        raise InvalidRequest(f"{expected.model!r} has the inputs {names}: write {named}, or {_by_json(expected)}")
    ((name, info),) = expected.inputs.items()
    if info.shape is not None and len(info.shape) > 2:
        raise InvalidRequest(f"{expected.model!r} takes {_kind(info)}, which is no row of values: {_by_json(expected)}")
    if any(row.endswith(",") for row in rows):  # 5.1, 3.5, 1.4, 0.2 as the shell splits it
        rows = ["".join(rows)]
    if info.shape is not None and len(info.shape) < 2:
        values = [value_of(text, info, "") for row in rows for text in _split(row, info)]
        single = not info.shape and len(values) == 1
        return {name: _checked(name, values[0] if single else values, expected)}
    return {name: _checked(name, list(_table(rows, info, expected)), expected)}


def from_json(text: str, expected: Expected) -> dict[str, Any]:
    """
    The inputs of a signature from JSON: rows, rows with named values, or an array per input.

    Raises:
        InvalidRequest: It is no JSON, or does not fit.
    """
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise InvalidRequest(f"Standard input is no JSON ({exc}): {_json_form(expected)}") from exc
    if isinstance(given, dict) and len(given) == 1 and (envelope := next(iter(given))) in _ENVELOPES:
        given = given if envelope in expected.inputs else given[envelope]
    if given in ([], {}):
        raise InvalidRequest(f"Standard input holds no rows: {_json_form(expected)}")
    if isinstance(given, list) and all(isinstance(row, dict) and "b64" not in row for row in given):
        given = _columns(given, expected)
    if not isinstance(given, dict) or "b64" in given:
        if len(expected.inputs) != 1:
            raise InvalidRequest(f"{expected.model!r} has several inputs: {_json_form(expected)}")
        given = dict.fromkeys(expected.inputs, given)
    if given.keys() != expected.inputs.keys():
        raise InvalidRequest(
            f"{expected.model!r} has the inputs {', '.join(sorted(expected.inputs))}, "
            f"not {', '.join(sorted(given)) or 'none'}: {_json_form(expected)}"
        )
    return {name: _checked(name, value, expected) for name, value in given.items()}


def written(golden: GoldenRows | None) -> str:
    """The first golden row as the command line takes it; empty where it is too long, or no row of numbers."""
    if golden is None or len(golden.inputs) != 1:
        return ""
    (rows,) = golden.inputs.values()
    if rows.ndim != 2 or not len(rows) or rows.dtype == object:
        return ""
    row = ",".join(f"{value:.6g}" for value in rows[0])
    return row if len(row) <= _MAX_EXAMPLE else ""


def plain(array: Any) -> Any:
    """An array as JSON can carry it; strings as text."""
    values = array.tolist()

    def decoded(value: Any) -> Any:
        if isinstance(value, list):
            return [decoded(each) for each in value]
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value

    return decoded(values)


def _table(rows: Sequence[str], info: TensorInfo, expected: Expected) -> Iterator[list[Any]]:
    """The values of each row, which must be as long as the signature says."""
    length = -1 if info.shape is None else info.shape[1]
    table = _one_or_many([_split(row, info) for row in rows], length, expected)
    for number, row in enumerate(table, 1):
        if len(row) != (length if length > 0 else len(table[0])):
            wanted = f"{expected.model!r} wants {expected.row_of(length)}" if length > 0 else f"row 1 {len(table[0])}"
            count = f"{len(row)} value{'' if len(row) == 1 else 's'}"
            raise InvalidRequest(f"Row {number} has {count}, {wanted}: write a row as {expected.written(length)}")
        yield [value_of(text, info, f"Row {number}, {expected.name_of(at, len(row))}: ") for at, text in enumerate(row)]


def _one_or_many(table: list[list[str]], length: int, expected: Expected) -> list[list[str]]:
    """`table`, with single values joined where they are one row."""
    if len(table) == 1 or length == 1 or any(len(row) > 1 for row in table):
        return table
    if length != len(table):
        wanted = expected.row_of(length) if length > 0 else "any number of values"
        raise InvalidRequest(
            f"{len(table)} single values were given, but a row of {expected.model!r} has {wanted}: "
            f"write commas between the values of a row, such as {expected.written(length)}"
        )
    return [[value for row in table for value in row]]


def _split(row: str, info: TensorInfo) -> list[str]:
    """The values of an argument, which is not split where the signature takes single texts."""
    if info.dtype == object and info.shape is not None and len(info.shape) < 2:
        return [row]
    return [value.strip() for value in row.rstrip(",").split(",")]


def value_of(text: str, info: TensorInfo, where: str) -> Any:
    """
    A value that was written as text.

    Raises:
        InvalidRequest: It is none of the input's type; the message begins with `where`.
    """
    kind = "f" if info.dtype is None else info.dtype.kind
    if kind == "O":
        return text
    if kind == "b" and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if kind in "iu" and _is_integer(text):
        return int(text)
    if kind not in "biu" and _is_number(text):
        return float(text)
    wanted = {"b": "neither true nor false", "i": "no whole number", "u": "no whole number"}.get(kind, "no number")
    raise InvalidRequest(f"{where}{text!r} is {wanted}")


def _is_integer(text: str) -> bool:
    return text.isascii() and text.removeprefix("-").isdecimal()


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.isascii() and "_" not in text


def _columns(rows: Sequence[Mapping[str, Any]], expected: Expected) -> dict[str, list[Any]]:
    """The values of each input; a row that leaves a name out has it missing, where the model takes that."""
    names = {name: column for column, name in expected.columns.items()}
    for number, row in enumerate(rows, 1):
        known = {expected.columns.get(name, name) for name in row}
        if known == expected.inputs.keys() or (expected.takes_missing and row and known < expected.inputs.keys()):
            continue
        raise InvalidRequest(
            f"Row {number} has {', '.join(sorted(row)) or 'nothing'}, and the inputs of {expected.model!r} are "
            f"{', '.join(sorted(expected.inputs))}"
        )
    return {
        name: [row.get(name, row.get(names.get(name, name), _missing(info))) for row in rows]
        for name, info in expected.inputs.items()
    }


def _missing(info: TensorInfo) -> Any:
    return "" if info.dtype == object else math.nan


def _checked(name: str, value: Any, expected: Expected) -> Any:
    """`value` as the clients take it, if it fits the input."""
    info = expected.inputs[name]
    if info.dtype is None:
        return value
    if info.dtype == object:
        return _fitting(name, np.array(_strings(name, value), object), expected)
    try:
        given = np.asarray(value)
    except ValueError as exc:
        raise InvalidRequest(f"Input {name!r}: the rows are not equally long; it is {_kind(info)}") from exc
    if given.dtype.kind not in _ACCEPTED_KINDS.get(info.dtype.kind, given.dtype.kind):
        raise InvalidRequest(f"Input {name!r} is {_kind(info)}, but the values given are not: {_json_form(expected)}")
    given = _fitting(name, given, expected)
    with np.errstate(over="ignore", invalid="ignore"):
        array = given.astype(info.dtype)
    if info.dtype.kind in "iu" and not np.array_equal(array, given):
        at = np.argwhere(array != given)[0]
        raise InvalidRequest(f"{_place(at, given, expected)}: {given[tuple(at)]} is beyond {info.dtype}")
    if (
        info.dtype.kind in "fV"
        and not expected.takes_missing
        and not (finite := np.isfinite(array.astype(float))).all()
    ):
        at = np.argwhere(~finite)[0]
        raise InvalidRequest(
            f"{_place(at, given, expected)}: {given[tuple(at)]} is no number that {expected.model!r} was made for; "
            "give a finite one"
        )
    return array


def _fitting(name: str, array: NDArray[Any], expected: Expected) -> NDArray[Any]:
    """`array`, with a dimension added if it is a single row, if its shape fits the input."""
    shape = expected.inputs[name].shape
    if shape is None or _fits(array.shape, shape):
        return array
    if shape[:1] == (-1,) and _fits(array.shape, shape[1:]):
        return array[np.newaxis]
    if len(shape) == len(array.shape) == 2:
        raise InvalidRequest(
            f"The rows have {array.shape[1]} values, {expected.model!r} wants {expected.row_of(shape[1])}: "
            f"write a row as {expected.written(shape[1])}"
        )
    raise InvalidRequest(f"Input {name!r} is {_kind(expected.inputs[name])}, not {list(array.shape)}")


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return len(shape) == len(wanted) and all(want in (-1, have) for have, want in zip(shape, wanted, strict=True))


def _place(at: NDArray[np.intp], array: NDArray[Any], expected: Expected) -> str:
    if array.ndim == 2:
        return f"Row {at[0] + 1}, {expected.name_of(int(at[1]), array.shape[1])}"
    return f"Value {' '.join(str(index + 1) for index in at) or '1'}"


def _strings(name: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_strings(name, each) for each in value]
    if isinstance(value, dict) and value.keys() == {"b64"}:
        try:
            return base64.b64decode(value["b64"], validate=True)
        except (binascii.Error, TypeError, ValueError) as exc:
            raise InvalidRequest(f"Input {name!r}: {value['b64']!r} is not base64") from exc
    if not isinstance(value, str):
        raise InvalidRequest(f"Input {name!r} takes strings, and {json.dumps(value)} is none")
    return value.encode()


def _kind(info: TensorInfo) -> str:
    kind = "string" if info.dtype == object else str(info.dtype)
    return kind if info.shape is None else f"{kind} {list(info.shape)}"


def _by_json(expected: Expected) -> str:
    return f"give them as JSON to `hotswap predict {expected.model} -`, {_json_form(expected)}"


def _json_form(expected: Expected) -> str:
    if len(expected.inputs) == 1:
        (info,) = expected.inputs.values()
        rank = 2 if info.shape is None else len(info.shape)
        if rank == 2:
            return f"write [[{expected.written(info.shape[1] if info.shape else -1).replace(',', ', ')}]]"
        return f"write an array of {_kind(info)}"
    return "write {" + ", ".join(f'"{name}": {_kind(info)}' for name, info in sorted(expected.inputs.items())) + "}"
