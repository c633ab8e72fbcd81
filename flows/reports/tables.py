"""
Lays out the tables of versions, history and checks for a terminal.

A table fits the columns that it is given: first ids and times become shorter, then what another column says too is left
out, then names lose their middle. Reasons stand below their row, unshortened. Without a number of columns nothing is
shortened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from flows.console.terminal import elided, one_line
from flows.promotion.labels import alias_of

if TYPE_CHECKING:
    from flows.gate.checks import Check
    from flows.journal import Entry
    from flows.reports.status import VersionRow

SHORT_ID = 8
"""how many characters of a run id a table shows"""

_SECONDS = "%Y-%m-%d %H:%M:%S"
_MINUTES = "%Y-%m-%d %H:%M"
_DAY = "%Y-%m-%d"
_GAP = 2
_NOTE_INDENT = 4
_MIN_ELIDED = 8
_MAX_WORD = 20
_MIN_COLUMNS = 6
_MIN_WHY = 40
_NUMBERS = ("version", "previous")


@dataclass(slots=True)
class _Column:
    """A heading and the cells below it."""

    heading: str
    cells: list[str]
    flexible: bool = False
    """whether it may become narrower, by cells that lose their middle"""
    wraps: bool = False
    """whether its cells take several lines instead"""
    number: bool = False
    """whether its cells are numbers, which end below one another"""
    columns: int = 0
    """its width"""

    def __post_init__(self) -> None:
        self.cells = [one_line(cell) for cell in self.cells]
        self.columns = max(map(cell_len, [self.heading, *self.cells]))

    @property
    def min_columns(self) -> int:
        """Its minimum width: cells that wrap keep their words whole, up to a limit."""
        if not self.wraps:
            return _MIN_ELIDED
        words = (cell_len(word) for cell in [self.heading, *self.cells] for word in cell.split())
        return min(max(words), _MAX_WORD)

    def render(self, cell: str) -> Text:
        return Text(cell if self.wraps else elided(cell, self.columns))


def version_table(rows: Sequence[VersionRow], columns: int | None) -> Group:
    """One line per version, newest first."""
    if columns is None:
        return _table(_version_columns(rows, _SECONDS, whole_ids=True), None)
    forms = [
        _version_columns(rows, _SECONDS, whole_ids=True),
        _version_columns(rows, _SECONDS),
        _version_columns(rows, _MINUTES),
        _version_columns(rows, _short_time),
        _version_columns(rows, _short_time, _aliases_that_differ),
        _version_columns(rows, _DAY, _aliases_that_differ),
    ]
    return _table(next((form for form in forms if _width(form) <= columns), forms[-1]), columns)


def history_table(entries: Sequence[Entry], columns: int | None) -> Group:
    """One line per entry of the journal, newest first, in local time, with its reason below."""
    whys = [one_line(str(entry.facts.get("why", ""))) for entry in entries]
    table = [
        _Column("time", [_local(entry.time, _SECONDS) for entry in entries]),
        _Column("action", [entry.action for entry in entries]),
        *(_Column(name, _facts(entries, name)) for name in ("version", "previous")),
        _Column("label", _facts(entries, "label"), flexible=True),
        _Column("who", [entry.who for entry in entries], flexible=True),
    ]
    if columns is None:
        return _table([*table, _Column("run", _facts(entries, "run_id")), _Column("why", whys)], None)
    return _table(table, columns, whys)


def gate_table(checks: Sequence[Check], columns: int | None) -> Group:
    """One line per check of the gate; the reason beside it where there is room, else below those that did not pass."""
    table = [
        _Column("check", [check.check for check in checks]),
        _Column("measured", [check.measured for check in checks], flexible=True, wraps=True),
        _Column("required", [check.required for check in checks], flexible=True, wraps=True),
        _Column("verdict", [str(check.verdict) for check in checks]),
    ]
    why = _Column("why", [check.why for check in checks])
    if columns is None:
        return _table([*table, why], None)
    room = columns - _width(table) - _GAP
    if room >= _MIN_WHY:
        why.wraps, why.columns = True, min(why.columns, room)
        return _table([*table, why], columns)
    return _table(table, columns, ["" if str(check.verdict) == "passed" else check.why for check in checks])


def drift_table(rows: Sequence[Mapping[str, str]], columns: int | None) -> Group:
    """One line per column that was compared, with what has changed below it."""
    table = [
        _Column("column", [row["column"] for row in rows], flexible=True),
        *(
            _Column(name, [row[name] for row in rows])
            for name in ("verdict", "psi", "test", "p", "missing", "unseen")
            if any(row[name] for row in rows)
        ),
    ]
    return _table(table, columns, [row["note"] for row in rows])


def _aliases(row: VersionRow) -> tuple[str, ...]:
    return row.aliases


def _version_columns(
    rows: Sequence[VersionRow],
    published: str | Callable[[datetime], str],
    aliases: Callable[[VersionRow], Iterable[str]] = _aliases,
    whole_ids: bool = False,
) -> list[_Column]:
    shown = [", ".join(aliases(row)) for row in rows]
    return [
        _Column("model", [row.model for row in rows], flexible=True),
        _Column("version", [str(row.version) for row in rows]),
        _Column("state", [row.state for row in rows], flexible=True, wraps=True),
        _Column("labels", [", ".join(row.labels) for row in rows], flexible=True, wraps=True),
        *([_Column("aliases", shown, flexible=True, wraps=True)] if aliases is _aliases or any(shown) else []),
        _measured_column(rows),
        _Column("published", [_local(row.published_at, published) for row in rows]),
        _Column("run", [(row.run_id or "")[: None if whole_ids else SHORT_ID] for row in rows]),
    ]


def _measured_column(rows: Sequence[VersionRow]) -> _Column:
    """What was measured of each version, under the name of the metric where all have the same."""
    names = {row.metric for row in rows if row.metric}
    numbers = ["" if row.measured is None else f"{row.measured:.4f}" for row in rows]
    if len(names) <= 1:
        return _Column(next(iter(names), "metric"), numbers, number=True)
    return _Column(
        "metric", [f"{row.metric} {number}" if number else "" for row, number in zip(rows, numbers, strict=True)]
    )


def _aliases_that_differ(row: VersionRow) -> tuple[str, ...]:
    return () if {alias_of(label) for label in row.labels} == {*row.aliases} else row.aliases


def _short_time(time: datetime) -> str:
    """As `ls` shows it: with the time of day in this year, else with the year."""
    return f"{time:%b %d %H:%M}" if time.year == datetime.now().year else f"{time:%b %d  %Y}"


def _local(time: str | None, form: str | Callable[[datetime], str]) -> str:
    """A time of the journal or a stamp in local time; unchanged where it is no time."""
    try:
        local = datetime.fromisoformat(time or "").astimezone()
    except ValueError:
        return time or ""
    return f"{local:{form}}" if isinstance(form, str) else form(local)


def _facts(entries: Sequence[Entry], name: str) -> list[str]:
    return [str(entry.facts.get(name, "")) for entry in entries]


def _width(table: Sequence[_Column]) -> int:
    return sum(column.columns for column in table) + _GAP * (len(table) - 1)


def _table(table: Sequence[_Column], columns: int | None, notes: Sequence[str] = ()) -> Group:
    """Headings and rows, each row followed by its note."""
    if columns is not None:
        _make_fit(table, columns)
    lines: list[Table | Padding] = [_line(table, [Text(column.heading, "bold") for column in table])]
    for number in range(len(table[0].cells)):
        lines.append(_line(table, [column.render(column.cells[number]) for column in table]))
        if notes and notes[number]:
            lines.append(Padding(Text(one_line(notes[number])), (0, 0, 0, _NOTE_INDENT), expand=False))
    return Group(*lines)


def _make_fit(table: Sequence[_Column], columns: int) -> None:
    """Narrow the widest flexible columns until the table fits; words are cut only when nothing else helps."""
    for cut_words in (False, True):
        for _ in range(_width(table) - columns):
            narrowable = [
                column
                for column in table
                if column.flexible and column.columns > (_MIN_COLUMNS if cut_words else column.min_columns)
            ]
            if not narrowable:
                break
            max(narrowable, key=lambda column: column.columns).columns -= 1


def _line(table: Sequence[_Column], cells: Sequence[Text]) -> Table:
    line = Table.grid(padding=(0, _GAP, 0, 0))
    for column in table:
        justify = "right" if column.number or column.heading in _NUMBERS else "left"
        line.add_column(width=column.columns, no_wrap=not column.wraps, justify=justify)  # type: ignore[arg-type]
    line.add_row(*cells)
    return line
