"""
Splits rows into those to train on and those held out.

By content, which is the default, a row's side is decided by its id alone: it never changes sides when rows are added,
and equal rows are on one side.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flows.data.ids import row_ids
from flows.data.rows import Rows
from serving.protocol.errors import HotswapError

_IDS = 2.0**64


class InvalidSplit(HotswapError):
    """The rows cannot be split like this."""


@dataclass(frozen=True, slots=True)
class Split(ABC):
    """A rule that decides which rows are held out."""

    @abstractmethod
    def held_out(self, rows: Rows) -> NDArray[np.bool_]:
        """
        bool [rows]: which rows no training may see.

        Raises:
            InvalidSplit: There is no such column, or one side would be empty.
        """


@dataclass(frozen=True, slots=True)
class ByContent(Split):
    """About `test_share` of the distinct rows are held out, chosen by a hash of their inputs."""

    test_share: float = 0.2

    def __post_init__(self) -> None:
        _check_share(self.test_share)

    def held_out(self, rows: Rows) -> NDArray[np.bool_]:
        return rows.ids < self.test_share * _IDS


@dataclass(frozen=True, slots=True)
class ByGroup(Split):
    """About `test_share` of the groups are held out, all rows with one value of `column` on the same side."""

    column: str
    test_share: float = 0.2

    def __post_init__(self) -> None:
        _check_share(self.test_share)

    def held_out(self, rows: Rows) -> NDArray[np.bool_]:
        return row_ids({self.column: _column(rows, self.column)}) < self.test_share * _IDS


@dataclass(frozen=True, slots=True)
class ByTime(Split):
    """The last `test_share` of the rows in the order of `column` are held out, equal times on the same side."""

    column: str
    test_share: float = 0.2

    def __post_init__(self) -> None:
        _check_share(self.test_share)

    def held_out(self, rows: Rows) -> NDArray[np.bool_]:
        times = _column(rows, self.column)
        first = np.sort(times)[min(len(times) - 1, round(len(times) * (1 - self.test_share)))]
        held_out: NDArray[np.bool_] = times >= first
        return held_out


@dataclass(frozen=True, slots=True)
class HeldOut(Split):
    """Rows of one's own are held out: `load` gives them as the recipe's own `load` gives the rows to train on."""

    load: Callable[[], Any]

    def held_out(self, rows: Rows) -> NDArray[np.bool_]:
        return np.zeros(len(rows), np.bool_)


def _check_share(share: float) -> None:
    if not 0 < share < 1:
        raise InvalidSplit(f"The share of rows to hold out is between 0 and 1, not {share}")


def _column(rows: Rows, name: str) -> NDArray[Any]:
    if name not in rows.columns:
        raise InvalidSplit(f"There is no column {name!r} to split by; there are {', '.join(sorted(rows.columns))}")
    return rows.columns[name]
