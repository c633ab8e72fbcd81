"""
Columns that can be compared one by one, of the inputs of a model and of its answers.

An array of few values a row is a column for each; of an image the mean and the spread of a row's values are compared,
of a text its length.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flows.data.rows import Inputs

MAX_VALUES = 64
"""An array of more values a row is compared by their mean and spread."""
_MAX_DISTINCT_SHARE = 0.5
_MIN_TEXT_VALUES = 50


class Kind(StrEnum):
    """What the values of a column are."""

    NUMBER = "number"
    CATEGORY = "category"
    DATE = "date"
    """of which only what is missing is compared, as time goes on"""


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """The values of some rows."""

    name: str
    kind: Kind
    values: NDArray[Any]
    """[known rows]: float64, or object with `str`"""
    rows: int
    """with those where it is missing"""

    @property
    def missing(self) -> int:
        return self.rows - len(self.values)


def number_column(name: str, values: NDArray[Any]) -> Column:
    """Numbers [rows], as precise as float32, which a profile keeps; what is NaN or infinite is missing."""
    with np.errstate(over="ignore"):
        numbers = values.astype(np.float32).astype(np.float64)
    return Column(name, Kind.NUMBER, numbers[np.isfinite(numbers)], len(numbers))


def category_column(name: str, values: NDArray[Any], kind: Kind = Kind.CATEGORY) -> Column:
    """Texts [rows]; an empty one is missing."""
    texts = texts_of(values)
    return Column(name, kind, texts[texts != ""], len(texts))


def texts_of(values: NDArray[Any]) -> NDArray[Any]:
    """Strings as `str`, whether they came as such or as bytes."""
    texts = np.empty(len(values), object)
    texts[:] = [each.decode("utf-8", "replace") if isinstance(each, bytes) else str(each) for each in values]
    return texts


def columns_of(inputs: Inputs, feature_names: Sequence[str], kinds: Mapping[str, Kind | None]) -> list[Column]:
    """
    The columns of some rows.

    Args:
        inputs: Arrays [rows, …] by input.
        feature_names: Of the values of a row, where there is but one input.
        kinds: What the texts of an input are, by its name; None for texts that are compared by their length.
    """
    return [
        column
        for name, array in inputs.items()
        for column in _columns(name, array, feature_names, kinds.get(name, Kind.CATEGORY))
    ]


def _columns(name: str, array: NDArray[Any], feature_names: Sequence[str], kind: Kind | None) -> Iterator[Column]:
    flat = array.reshape(len(array), -1)
    width = flat.shape[1]
    if width > MAX_VALUES:
        if array.dtype.kind in "fiub":
            numbers = flat.astype(np.float64)
            yield number_column(f"{name} mean", numbers.mean(axis=1))
            yield number_column(f"{name} spread", numbers.std(axis=1))
        return
    names = [name] if width == 1 else [f"{name}[{at}]" for at in range(width)]
    if len(feature_names) == width > 1:
        names = list(feature_names)
    for each, values in zip(names, flat.T, strict=True):
        yield _column(each, values, kind)


def _column(name: str, values: NDArray[Any], kind: Kind | None) -> Column:
    if values.dtype.kind in "fiu":
        return number_column(name, values)
    if kind is None:
        return length_column(name, values)
    return category_column(name, values, kind)


def length_column(name: str, values: NDArray[Any]) -> Column:
    """How many characters texts [rows] have; an empty one is missing."""
    lengths = np.array([len(each) for each in texts_of(values)], np.float64)
    return Column(f"{name} length", Kind.NUMBER, lengths[lengths > 0], len(lengths))


def text_kind(texts: NDArray[Any]) -> Kind | None:
    """What the strings [rows, …] of an input are; those of which most come once are no categories."""
    values = set(texts.ravel().tolist())
    is_text = len(values) > _MIN_TEXT_VALUES and len(values) > _MAX_DISTINCT_SHARE * texts.size
    return None if is_text else Kind.CATEGORY
