"""SavedModels that are never written: a function, loaded as the server would load it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from serving.runtime.saved_model import LoadOptions, unrestored
from serving.runtime.servable import Servable


def servable_of(function: Callable[..., Any], *specs: Any) -> Servable:
    """
    A servable with one signature, which takes ``x0``, ``x1`` … and gives ``y0``, ``y1`` ….

    Args:
        function: It may not make variables.
        specs: A ``tf.TensorSpec`` for each input.
    """
    import tensorflow as tf
    from tensorflow.core.protobuf import meta_graph_pb2

    concrete = tf.function(function).get_concrete_function(*specs)
    meta_graph = meta_graph_pb2.MetaGraphDef(graph_def=concrete.graph.as_graph_def())
    signature = meta_graph.signature_def["serving_default"]
    _describe(signature.inputs, "x", concrete.inputs)
    _describe(signature.outputs, "y", concrete.outputs)
    return unrestored("in_memory", 1, Path(), LoadOptions(), meta_graph)


def _describe(infos: Any, letter: str, tensors: Sequence[Any]) -> None:
    for number, tensor in enumerate(tensors):
        info = infos[f"{letter}{number}"]
        info.name, info.dtype = tensor.name, tensor.dtype.as_datatype_enum
        info.tensor_shape.CopyFrom(tensor.shape.as_proto())
