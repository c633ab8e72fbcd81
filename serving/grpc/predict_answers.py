"""
Writes the answers to predicts.

An answer with one output of floats differs from the one before in its values alone, so the bytes around them are kept.

Source: tensorflow_serving/apis/predict.proto
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from serving.grpc.model_specs import fill_spec
from serving.protocol import wire_pb2 as wire
from serving.protocol.tensors import Array, data_type_of, encode, varint
from serving.runtime.call import Call


class PredictAnswers:
    """
    Writes ``PredictResponse`` messages.

    Args:
        as_content: Write values as ``tensor_content`` instead of typed fields.
    """

    def __init__(self, as_content: bool) -> None:
        self._as_content = as_content

    def write(self, call: Call, outputs: list[Array]) -> bytes:
        """The bytes of an answer with these outputs, in the order of ``call.outputs``."""
        servable, signature_name = call.servable, call.signature.name
        if len(outputs) == 1 and outputs[0].dtype.char in "fd" and outputs[0].size:
            (array,), (alias,) = outputs, call.outputs
            head, tail = _frame(
                servable.model, servable.version, signature_name, alias, array.dtype, array.shape, self._as_content
            )
            return b"".join((head, np.ascontiguousarray(array).data, tail))
        response = wire.PackedPredictResponse()
        for alias, array in zip(call.outputs, outputs, strict=True):
            encode(array, response.outputs[alias], self._as_content)
        fill_spec(response.model_spec, servable, signature_name)
        return response.SerializeToString()


@lru_cache(1024)
def _frame(
    model: str,
    version: int,
    signature_name: str,
    alias: str,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    as_content: bool,
) -> tuple[bytes, bytes]:
    """The bytes before and after the values of the only output; the same for all answers of one shape."""
    tensor: Any = wire.TensorProto()
    tensor.dtype = data_type_of(dtype)
    tensor.tensor_shape.SetInParent()
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    field = "tensor_content" if as_content else "float_val" if dtype.char == "f" else "double_val"
    value_bytes = math.prod(shape) * dtype.itemsize
    head = tensor.SerializeToString() + _length_prefix(tensor.DESCRIPTOR.fields_by_name[field].number, value_bytes)
    head = _length_prefix(2, len(head) + value_bytes) + head
    head = _length_prefix(1, len(alias.encode())) + alias.encode() + head
    response = wire.PredictResponse()
    spec = response.model_spec
    spec.name, spec.version.value, spec.signature_name = model, version, signature_name
    return _length_prefix(1, len(head) + value_bytes) + head, response.SerializeToString()


def _length_prefix(number: int, size: int) -> bytes:
    """The bytes before the value of a field."""
    return varint(number << 3 | 2) + varint(size)
