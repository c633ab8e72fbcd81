"""
A SavedModel, loaded to be asked in this process.

It is asked as clients ask it: by its signature ``serving_default``, with tensors by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flows.data.rows import Inputs, count, taken
from flows.tasks import CannotEvaluate
from flows.training.inspection import Signature, describe, is_dense
from serving.protocol.unknown_operations import explained

SIGNATURE = "serving_default"
OUTPUT = "output"
"""the output that is judged, where there are several"""
_CHUNK_BYTES, _CHUNK_ROWS = 1 << 24, 1 << 16  # so that memory does not grow with the rows


class NotRestored(CannotEvaluate):
    """It loads, but what it computes with, variables or tables, is not there: it can answer no row."""


class Predictor:
    """The signature ``serving_default`` of a loaded SavedModel."""

    def __init__(self, saved_model: Path, loaded: Any) -> None:
        self._saved_model = saved_model
        self._loaded = loaded  # held here, because TensorFlow frees the variables with it
        self._signature = loaded.signatures[SIGNATURE]
        self._specs = self._signature.structured_input_signature[1]

    def bind(self, inputs: Inputs) -> dict[str, NDArray[Any]]:
        """
        These inputs as the signature takes them: by its names, in its types.

        One input goes to the only input of the signature, whatever it is called.

        Raises:
            CannotEvaluate: They do not fit.
        """
        if len(inputs) == len(self._specs) == 1:
            inputs = dict(zip(self._specs, inputs.values(), strict=True))
        if missing := sorted(self._specs.keys() - inputs.keys()):
            given = ", ".join(sorted(inputs))
            raise CannotEvaluate(f"it takes {', '.join(missing)}, which the data does not have: that has {given}")
        return {name: self._fitting(name, inputs[name]) for name in self._specs}

    def __call__(self, inputs: Inputs) -> dict[str, NDArray[Any]]:
        """
        Ask for all outputs.

        Args:
            inputs: Arrays of the same number of rows.

        Raises:
            CannotEvaluate: They do not fit, or an answer cannot be computed.
        """
        import tensorflow as tf

        bound = self.bind(inputs)
        rows = count(bound)
        step = min(_CHUNK_ROWS, max(1, _CHUNK_BYTES // max(1, _row_bytes(bound))))
        chunks = []
        with _translated(self._saved_model):
            for at in range(0, max(rows, 1), step):
                tensors = {name: tf.constant(array) for name, array in taken(bound, slice(at, at + step)).items()}
                chunks.append({name: found.numpy() for name, found in self._signature(**tensors).items()})
            return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}

    def judged(self, outputs: Inputs) -> NDArray[Any]:
        """
        The output that is judged, as `judged_name` tells.

        Raises:
            CannotEvaluate: It cannot be told.
        """
        return outputs[judged_name(outputs)]

    def _fitting(self, name: str, array: NDArray[Any]) -> NDArray[Any]:
        spec = self._specs[name]
        wanted = spec.dtype.as_numpy_dtype
        if (array.dtype == object) != (wanted is object):
            kind = "strings" if array.dtype == object else array.dtype
            raise CannotEvaluate(f"its input {name!r} is {spec.dtype.name}, and the data has {kind}")
        if not spec.shape.is_compatible_with(array.shape):  # which a server checks, and this way of asking does not
            # One value a row, as a vector or as a column.
            column = array.reshape(len(array), -1)
            if not (column.shape[1:] == (1,) and spec.shape.is_compatible_with(column.shape)):
                raise CannotEvaluate(f"its input has shape {spec.shape}, which {list(array.shape)} does not fit")
            array = column
        return array if array.dtype == object else array.astype(wanted, copy=False)


def judged_name(outputs: Mapping[str, Any]) -> str:
    """
    Which of these outputs is judged: the only one, the one called ``output``, or the only one of several floats a row.

    Raises:
        CannotEvaluate: It cannot be told.
    """
    if len(outputs) == 1 or OUTPUT in outputs:
        return next(iter(outputs)) if len(outputs) == 1 else OUTPUT
    rows = [name for name, each in outputs.items() if each.dtype.kind == "f" and each.shape and len(each.shape) == 2]
    if len(rows) != 1:
        raise CannotEvaluate(f"it gives {', '.join(sorted(outputs))}: call the one that is to be judged {OUTPUT!r}")
    return rows[0]


def load_predictor(saved_model: Path) -> Predictor:
    """
    The signature ``serving_default``, which must have dense inputs and outputs.

    Raises:
        CannotEvaluate: It cannot be loaded, or has no such signature.
    """
    import tensorflow as tf

    from serving.runtime.op_libraries import load_missing
    from serving.runtime.saved_model import read_meta_graph

    with _translated(saved_model):
        meta_graph = read_meta_graph(saved_model)
        check_signature(saved_model, describe(meta_graph).get(SIGNATURE))
        load_missing(meta_graph.graph_def)
        return Predictor(saved_model, tf.saved_model.load(str(saved_model)))


def check_signature(saved_model: Path | str, signature: Signature | None) -> None:
    """
    Raises:
        CannotEvaluate: There is no signature, or its tensors are not all dense.
    """
    if signature is None:
        has = f"has no signature {SIGNATURE!r}"
    elif not all(map(is_dense, [*signature.inputs.values(), *signature.outputs.values()])) or not signature.inputs:
        has = f"takes {_listed(signature.inputs)} and gives {_listed(signature.outputs)}"
    else:
        return
    raise CannotEvaluate(
        f"{saved_model} {has}: export it with a signature {SIGNATURE!r} that takes dense tensors with a row per "
        "example, and gives dense tensors with a row per example"
    )


def _listed(tensors: Mapping[str, str]) -> str:
    return ", ".join(f"{name!r} ({described})" for name, described in tensors.items()) or "nothing"


def _row_bytes(inputs: Inputs) -> int:
    return sum(array.nbytes // max(1, len(array)) for array in inputs.values())


@contextmanager
def _translated(saved_model: Path) -> Iterator[None]:
    try:
        yield
    except CannotEvaluate:
        raise
    except Exception as exc:  # TensorFlow raises everything from KeyError to its own errors
        first_line = str(exc).strip().partition("\n")[0][:200]
        said = f"{saved_model} does not answer: {type(exc).__name__}: {explained(first_line)}"
        raise (NotRestored if type(exc).__name__ == "FailedPreconditionError" else CannotEvaluate)(said) from exc
