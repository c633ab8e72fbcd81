"""
What MLflow is told about the inputs and outputs of a model.

One row of numbers is unnamed columns of doubles, which take lists, arrays and data frames; inputs of one value a row
are named columns, so that a data frame with these columns is answered; anything else is tensors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from numpy.typing import NDArray

from serving.repository.answers import Tensors, as_text
from serving.repository.stamp import GoldenRows

_TYPES = {"f": DataType.double, "i": DataType.long, "u": DataType.long, "b": DataType.boolean, "O": DataType.string}


def pyfunc_signature(golden: GoldenRows) -> ModelSignature:
    """The signature of a model that answers rows like these."""
    return ModelSignature(inputs=_inputs(golden.inputs), outputs=Schema([_tensor(*each) for each in _named(golden)]))


def input_example(golden: GoldenRows) -> Any:
    """Some rows in a form that the signature takes."""
    import pandas as pd

    if (row := _row_of_numbers(golden.inputs)) is not None:
        return row.astype(float)
    if _are_columns(golden.inputs):
        return pd.DataFrame({name: _plain(array.reshape(-1)) for name, array in golden.inputs.items()})
    tensors = {name: _plain(array) for name, array in golden.inputs.items()}
    return tensors if len(tensors) > 1 else next(iter(tensors.values()))


def _inputs(inputs: Tensors) -> Schema:
    if (row := _row_of_numbers(inputs)) is not None:
        return Schema([ColSpec(DataType.double)] * row.shape[1])
    if _are_columns(inputs):
        return Schema([ColSpec(_TYPES[array.dtype.kind], name) for name, array in inputs.items()])
    tensors = [_tensor(name if len(inputs) > 1 else None, array) for name, array in inputs.items()]
    return Schema(tensors)


def _named(golden: GoldenRows) -> list[tuple[str | None, NDArray[Any]]]:
    named = len(golden.outputs) > 1
    return [(name if named else None, array) for name, array in golden.outputs.items()]


def _tensor(name: str | None, array: NDArray[Any]) -> TensorSpec:
    return TensorSpec(np.dtype(str) if array.dtype == object else array.dtype, (-1, *array.shape[1:]), name)


def _row_of_numbers(inputs: Tensors) -> NDArray[Any] | None:
    """The only input, where it is a row of numbers."""
    if len(inputs) != 1:
        return None
    (only,) = inputs.values()
    return only if only.ndim == 2 and only.dtype.kind in "fiu" else None


def _are_columns(inputs: Tensors) -> bool:
    """Whether each input is one value a row."""
    return all(array[:1].size == 1 and array.dtype.kind in _TYPES for array in inputs.values())


def _plain(array: NDArray[Any]) -> NDArray[Any]:
    """Strings as `str`, which is what MLflow writes into its example."""
    return np.array([as_text(each) for each in array.flat]).reshape(array.shape) if array.dtype == object else array
