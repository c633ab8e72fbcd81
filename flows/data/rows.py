"""Rows: the inputs of a model by name, the targets, and what identifies each row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Inputs = Mapping[str, NDArray[Any]]
"""Arrays with the same number of rows, by the name of the model's input; strings are object arrays of `str`."""

ONLY_INPUT = "input"
"""the input of a model whose data is one bare array"""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Some rows of a data set."""

    inputs: Inputs
    targets: NDArray[Any]
    """as the task has them, such as int64 [rows] for classes or float64 [rows, values]"""
    ids: NDArray[np.uint64]
    """uint64 [rows]: a hash of the row's inputs, equal for equal rows"""
    extras: Inputs = field(default_factory=dict)
    """columns that the model is not asked with: to split by, to weigh by or to look at slices of"""

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def examples(self) -> Any:
        """What Keras takes: the bare array where there is but one input of no name of its own, else a dict."""
        return bare(self.inputs)

    @property
    def columns(self) -> Inputs:
        """Inputs and extras."""
        return {**self.inputs, **self.extras}

    def take(self, rows: NDArray[Any]) -> Self:
        """These rows, by number or by mask."""
        return type(self)(taken(self.inputs, rows), self.targets[rows], self.ids[rows], taken(self.extras, rows))


def taken(inputs: Inputs, rows: NDArray[Any] | slice) -> dict[str, NDArray[Any]]:
    """The same arrays with these rows only."""
    return {name: array[rows] for name, array in inputs.items()}


def bare(inputs: Inputs) -> Any:
    """The array called `ONLY_INPUT` where there is no other, else a dict of all."""
    return inputs[ONLY_INPUT] if inputs.keys() == {ONLY_INPUT} else dict(inputs)


def count(inputs: Inputs) -> int:
    """How many rows these are."""
    return len(next(iter(inputs.values()), ()))
