"""The column that is to be predicted: which task it makes, and what its classes are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from flows.tables.options import UnusableTable

_MAX_NUMBER_CLASSES = 10
_MAX_CLASSES = 200
_BOOLEANS = ({"true", "false"}, {"yes", "no"}, {"y", "n"}, {"t", "f"})
_POSITIVE = frozenset({"true", "yes", "y", "t"})


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be predicted for each row."""

    values: NDArray[Any]
    """int64 [rows] classes, or float64 [rows]; -1 or NaN where it is missing"""
    class_names: tuple[str, ...]
    """empty for a regression"""
    reason: str
    """how the task was found"""

    @property
    def is_known(self) -> NDArray[np.bool_]:
        return ~np.isnan(self.values) if not self.class_names else self.values >= 0


def read_target(column: pd.Series, task: str | None, positive: str | None) -> Target:
    """
    The targets of a table.

    Args:
        column: Numbers or texts.
        task: "classification" or "regression"; None lets the values decide.
        positive: The class that comes second, of two.

    Raises:
        UnusableTable: There are no two classes, or words where numbers are asked for.
    """
    name, known = str(column.name), column.dropna()
    if not len(known):
        raise UnusableTable(f"The target {name!r} has no values: name another column, or fill it")
    is_number = pd.api.types.is_numeric_dtype(column)
    distinct = known.nunique()
    if distinct < 2:
        raise UnusableTable(
            f"The target {name!r} has one value only, {_shown(known.iloc[0])}: there is nothing to learn"
        )
    chosen = task or _task_of(known, is_number, distinct)
    if chosen == "regression":
        if not is_number:
            raise UnusableTable(f"The target {name!r} has words, such as {known.iloc[0]!r}: a regression needs numbers")
        if positive is not None:
            raise UnusableTable(
                f"--positive names a class, and {name!r} is taken for numbers: add --task classification"
            )
        return Target(column.to_numpy(np.float64), (), _reason(task, f"{distinct} different numbers"))
    if distinct > _MAX_CLASSES or distinct > 0.5 * len(known):
        raise UnusableTable(
            f"The target {name!r} has {distinct} different values in {len(known)} rows, too many for classes: "
            + ("add --task regression" if is_number else "name another column, or group its values")
        )
    return _classes(column, positive, _reason(task, f"{distinct} different {'numbers' if is_number else 'words'}"))


def _task_of(known: pd.Series, is_number: bool, distinct: int) -> str:
    if not is_number:
        return "classification"
    is_whole = bool((known == known.round()).all())
    return "classification" if distinct <= 2 or (is_whole and distinct <= _MAX_NUMBER_CLASSES) else "regression"


def _reason(task: str | None, found: str) -> str:
    return "as --task says" if task else found


def _classes(column: pd.Series, positive: str | None, reason: str) -> Target:
    texts = column.map(_shown, na_action="ignore").astype("str")
    counts = texts.value_counts()
    if rare := [name for name, count in counts.items() if count < 2]:
        texts = texts.where(~texts.isin(rare))
        reason += f"; {', '.join(map(repr, rare[:5]))} has one row only, which is left out"
    names = _ordered(list(texts.dropna().unique()), pd.api.types.is_numeric_dtype(column))
    if len(names) < 2:
        raise UnusableTable(f"The target {column.name!r} has one class with more than one row: a classifier needs two")
    if positive is not None:
        if positive not in names:
            raise UnusableTable(f"The target {column.name!r} has no class {positive!r}: it has {', '.join(names[:10])}")
        names = [*(name for name in names if name != positive), positive]
    numbers = texts.map({name: number for number, name in enumerate(names)})
    return Target(numbers.fillna(-1).to_numpy(np.int64), tuple(names), reason)


def _ordered(names: list[str], are_numbers: bool) -> list[str]:
    """Numbers by their size, no before yes, and words by the alphabet."""
    if are_numbers:
        return sorted(names, key=float)
    if {name.lower() for name in names} in _BOOLEANS:
        return sorted(names, key=lambda name: name.lower() in _POSITIVE)
    return sorted(names)


def _shown(value: Any) -> str:
    return f"{value:.12g}" if isinstance(value, float) else str(value)
