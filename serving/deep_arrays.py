"""
How are tensors run that have more dimensions than numpy can hold?

numpy stops at 64 dimensions, TensorFlow at 254. Such a tensor goes in and out as a serialised ``TensorProto``: a second
copy of the graph, made when the first one comes, parses its inputs and serialises its outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tensorflow.core.framework import tensor_pb2

from serving.tensors import Array, decode, encode


def deep_callable(
    session: Any, feeds: Sequence[str], fetches: Sequence[str]
) -> Callable[[Sequence[Array], None], list[Any]]:
    """A function of the fed arrays (and None) that returns the fetched ones, all of any number of dimensions."""
    from tensorflow.core.protobuf import config_pb2
    from tensorflow.python.framework import dtypes, importer
    from tensorflow.python.ops import array_ops, gen_parsing_ops

    graph = session.graph
    graph._add_new_tf_operations(compute_devices=False)  # as Python objects, which nobody has needed so far
    graph_def = graph.as_graph_def()
    with graph.as_default():
        serialized = [array_ops.placeholder(dtypes.string, []) for _ in feeds]
        types = [graph.get_tensor_by_name(name).dtype for name in feeds]
        parsed = [gen_parsing_ops.parse_tensor(each, dtype) for each, dtype in zip(serialized, types, strict=True)]
        found = importer.import_graph_def(
            graph_def, input_map=dict(zip(feeds, parsed, strict=True)), return_elements=list(fetches), name="deep"
        )
        results = [gen_parsing_ops.serialize_tensor(each) for each in found]
    options = config_pb2.CallableOptions(
        feed=[tensor.name for tensor in serialized], fetch=[tensor.name for tensor in results]
    )
    run = session._make_callable_from_options(options)

    def call(arrays: Sequence[Array], _: None) -> list[Any]:
        return [decode(tensor_pb2.TensorProto.FromString(result)) for result in run(*map(_serialized, arrays))]

    return call


def _serialized(array: Any) -> Array:
    proto = tensor_pb2.TensorProto()
    encode(array, proto, as_content=True)
    return np.array(proto.SerializeToString(), object)  # of plain bytes numpy would cut off the last zeros
