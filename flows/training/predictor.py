"""
A SavedModel, loaded to be asked for class probabilities in this process.

It is asked as clients ask it: by its signature ``serving_default``, from ``input`` to ``output``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flows.training.inspection import Signature, describe, is_dense
from serving.protocol.errors import HotswapError
from serving.protocol.unknown_operations import explained

_SIGNATURE = "serving_default"
_CHUNK_ROWS = 1 << 16  # so that memory does not grow with the rows

Predictor = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Examples float32 [rows, features] to class probabilities float32 [rows, classes]."""


class CannotEvaluate(HotswapError):
    """A SavedModel does not answer these rows with class probabilities."""


def load_predictor(saved_model: Path) -> Predictor:
    """
    The signature ``serving_default`` with input ``input`` and output ``output``.

    Raises:
        CannotEvaluate: It cannot be loaded, or has no such signature; the predictor raises the same for rows that it
            cannot answer.
    """
    import tensorflow as tf

    from serving.runtime.op_libraries import load_missing
    from serving.runtime.saved_model import read_meta_graph

    with _translated(saved_model):
        meta_graph = read_meta_graph(saved_model)
        _check_signature(saved_model, describe(meta_graph).get(_SIGNATURE))
        load_missing(meta_graph.graph_def)
        loaded = tf.saved_model.load(str(saved_model))
        signature = loaded.signatures[_SIGNATURE]
        shape = signature.structured_input_signature[1]["input"].shape

    def predict(examples: NDArray[np.float32]) -> NDArray[np.float32]:
        assert loaded is not None  # held here, because TensorFlow frees the variables with it
        if not shape.is_compatible_with(examples.shape):  # which a server checks, and this way of asking does not
            raise CannotEvaluate(f"its input has shape {shape}, which {list(examples.shape)} does not fit")
        chunks = (examples[at : at + _CHUNK_ROWS] for at in range(0, len(examples), _CHUNK_ROWS))
        with _translated(saved_model):
            return np.concatenate([signature(input=tf.constant(chunk))["output"].numpy() for chunk in chunks])

    return predict


def _check_signature(saved_model: Path, signature: Signature | None) -> None:
    """Check that the signature has one dense input and one dense output, of the expected names."""
    if signature is None:
        has = "has no signature 'serving_default'"
    elif not (is_dense(signature.inputs.get("input", "")) and is_dense(signature.outputs.get("output", ""))):
        has = f"takes {_listed(signature.inputs)} and gives {_listed(signature.outputs)}"
    else:
        return
    raise CannotEvaluate(
        f"{saved_model} {has}: export it with a signature 'serving_default' that takes 'input', a dense tensor of one "
        "row per example, and gives 'output', a dense tensor of the probabilities of the classes"
    )


def _listed(tensors: Mapping[str, str]) -> str:
    return ", ".join(f"{name!r} ({described})" for name, described in tensors.items()) or "nothing"


@contextmanager
def _translated(saved_model: Path) -> Iterator[None]:
    try:
        yield
    except CannotEvaluate:
        raise
    except Exception as exc:  # TensorFlow raises everything from KeyError to its own errors
        first_line = str(exc).strip().partition("\n")[0][:200]
        raise CannotEvaluate(f"{saved_model} does not answer: {type(exc).__name__}: {explained(first_line)}") from exc
