"""
Held-out rows of a file, for a SavedModel that comes without a recipe.

Its signature says which columns it takes and in which types; its class names, or the targets and the width of its
answers, say what is asked of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from flows.data.ids import row_ids
from flows.data.rows import Inputs, Rows
from flows.tables.evidence import HoldOut
from flows.tables.options import UnusableTable
from flows.tables.reading import read_table
from flows.tables.schema import Schema
from flows.tables.targets import read_target
from flows.tasks import Classification, Regression, Task
from flows.training.dataset import Dataset, dataset_of
from flows.training.inspection import Inspection, Tensor, tensors_of
from flows.training.predictor import SIGNATURE, check_signature, judged_name

_TRUTHS = {"true": 1.0, "false": 0.0}
_MAX_SHOWN = 8


def held_out_rows(hold_out: HoldOut, inspection: Inspection, schema: Schema | None = None) -> Dataset:
    """
    The rows of the file, all of them held out, as the model takes them.

    Args:
        hold_out: The file and its target.
        inspection: Of the model.
        schema: Of the table that the model was trained on, which says what its inputs call the columns.

    Raises:
        UnusableTable: The file cannot be read, or does not have what the model takes or what it predicts.
    """
    frame = read_table(hold_out.csv).frame
    if hold_out.target not in frame:
        raise UnusableTable(f"{hold_out.csv} has no column {hold_out.target!r}; it has {_listed(frame.columns)}")
    frame = frame[frame[hold_out.target].notna()]
    check_signature("the model", inspection.signatures.get(SIGNATURE))
    signature = inspection.signatures[SIGNATURE]
    features = frame.drop(columns=hold_out.target)
    if schema is not None:
        features = features.rename(columns={column.name: column.input for column in schema.columns})
    inputs = _inputs(features, tensors_of(signature.inputs))
    width = _width(tensors_of(signature.outputs))
    task, targets = _judged(frame[hold_out.target], hold_out, inspection.class_names, width)
    known = targets >= 0 if isinstance(task, Classification) else np.ones(len(targets), bool)
    rows = Rows(inputs, targets, row_ids(inputs)).take(known)
    if not len(rows):
        raise UnusableTable(f"{hold_out.csv} has no rows with a value of {hold_out.target!r}: name a file that has")
    names = tuple(map(str, features.columns)) if len(inputs) == 1 else tuple(inputs)
    return dataset_of(rows.take(np.zeros(len(rows), bool)), rows, names, task)


def _inputs(features: pd.DataFrame, takes: dict[str, Tensor]) -> Inputs:
    """By name where the columns are called like the inputs; else all columns in one input, in their order."""
    if takes.keys() <= set(features.columns):
        return {name: _column(features[name], tensor) for name, tensor in takes.items()}
    if len(takes) > 1:
        missing = _listed(sorted(takes.keys() - set(features.columns)))
        raise UnusableTable(
            f"The model takes {missing}, which the file has no columns for: give the columns these names"
        )
    ((name, tensor),) = takes.items()
    width = tensor.shape[1] if tensor.shape is not None and len(tensor.shape) == 2 else None
    if width is None or width not in (-1, len(features.columns)):
        raise UnusableTable(
            f"The model takes {name!r}, {tensor.text}, and the file has {len(features.columns)} columns beside the "
            "target: give it the columns of the model, in their order, or write a recipe"
        )
    return {name: np.stack([_column(features[column], tensor) for column in features], axis=1)}


def _column(column: pd.Series, tensor: Tensor) -> NDArray[Any]:
    if tensor.is_text:
        texts = column.map(_text, na_action="ignore").astype(object)
        return np.asarray(texts.where(column.notna(), ""), object)
    numbers = column if pd.api.types.is_numeric_dtype(column) else column.map(_TRUTHS, na_action="ignore")
    if len(strange := column[numbers.isna() & column.notna()]):
        raise UnusableTable(f"Column {column.name!r} has {strange.iloc[0]!r}, and the model takes numbers in it")
    if tensor.dtype.kind in "iub" and numbers.isna().any():
        raise UnusableTable(f"Column {column.name!r} has missing values, and the model takes {tensor.text}: fill them")
    return np.asarray(numbers, np.float64).astype(tensor.dtype)


def _judged(
    column: pd.Series, hold_out: HoldOut, class_names: tuple[str, ...], width: int | None
) -> tuple[Task, NDArray[Any]]:
    """The task, and the target of each row: a class, -1 where that is left out, or a number."""
    is_number = bool(pd.api.types.is_numeric_dtype(column))
    found_task = hold_out.task
    if found_task is None and not class_names and width == 1 and is_number and column.nunique() > 2:
        found_task = "regression"
    if found_task == "regression":
        regression = Regression((hold_out.target,))
        return regression, regression.targets(read_target(column, "regression", None).values, hold_out.target)
    if not class_names and is_number and (width or 0) > 1:
        class_names = tuple(map(str, range(width or 0)))
    if class_names:
        return Classification(class_names), _numbered(column, class_names)
    found = read_target(column, "classification", None)
    _check_width(found.class_names, width, hold_out)
    return Classification(found.class_names), found.values


def _numbered(column: pd.Series, class_names: tuple[str, ...]) -> NDArray[np.int64]:
    texts = column.map(_text)
    if unknown := sorted(set(texts) - set(class_names)):
        raise UnusableTable(
            f"The target {column.name!r} has {_listed(unknown)}, and the classes of the model are "
            f"{_listed(class_names)}: give the target these names"
        )
    return np.asarray(texts.map({name: number for number, name in enumerate(class_names)}), np.int64)


def _check_width(class_names: tuple[str, ...], width: int | None, hold_out: HoldOut) -> None:
    if width in (None, -1, len(class_names)) or (width == 1 and len(class_names) == 2):
        return
    raise UnusableTable(
        f"The model answers with {width} values, and {hold_out.target!r} has the classes {_listed(class_names)}: "
        "name the classes of the model in its assets/class_names.txt, one a line"
    )


def _width(outputs: dict[str, Tensor]) -> int | None:
    """How many values an answer has; None where its signature does not say."""
    shape = outputs[judged_name(outputs)].shape
    if shape is None:
        return None
    return 1 if len(shape) == 1 else shape[-1]


def _text(value: Any) -> str:
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def _listed(names: Any) -> str:
    shown = list(map(repr, map(str, names)))
    return ", ".join(shown[:_MAX_SHOWN]) + (f" and {len(shown) - _MAX_SHOWN} more" if len(shown) > _MAX_SHOWN else "")
