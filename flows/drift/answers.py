"""Columns of what a model answers: the class and how sure it is, or the values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flows.drift.columns import MAX_VALUES, Column, category_column, number_column

CLASS, CONFIDENCE, VALUE = "answered class", "confidence", "answer"


def answer_columns(answers: NDArray[Any], class_names: Sequence[str]) -> list[Column]:
    """
    The columns of answers [rows, …]; none where they are no numbers, or too many.

    Args:
        answers: Probabilities of classes, also as one sigmoid, or values.
        class_names: Of a classification, else none.
    """
    flat = answers.reshape(len(answers), -1)
    if flat.dtype.kind not in "fiub" or flat.shape[1] > MAX_VALUES:
        return []
    if class_names:
        chances = np.concatenate([1 - flat, flat], axis=1) if flat.shape[1] == 1 else flat
        if chances.shape[1] != len(class_names):
            return []
        classes = np.array(class_names, object)[chances.argmax(axis=1)]
        return [category_column(CLASS, classes), number_column(CONFIDENCE, chances.max(axis=1))]
    names = [VALUE] if flat.shape[1] == 1 else [f"{VALUE}[{at}]" for at in range(flat.shape[1])]
    return [number_column(name, values) for name, values in zip(names, flat.T, strict=True)]
