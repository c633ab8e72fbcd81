"""
Predicts that differ in their values alone, and their records, made all at once.

The thread that answers requests only adds the values of a predict to those of others like it. What is around them in a
record is as long for all of a group, as numbers are written as ``tensor_content``.

Source: tensorflow_serving/apis/prediction_log.proto, tensorflow/core/framework/tensor.proto
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from serving.protocol import wire_pb2 as wire
from serving.protocol.tensors import Array, data_type_of, varint
from serving.request_log.record_metadata import message_field, metadata
from serving.request_log.records import PREDICT_LOG, REQUEST, RESPONSE, Writing, name_model
from serving.runtime.call import Call

MAX_GROUPED_BYTES = 2**16

_Parts = list[bytes | int]
"""Bytes, and of what differs from record to record the length."""


class Form(NamedTuple):
    """What an array is but for its values."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    nbytes: int


def can_be_grouped(call: Call, arrays: Sequence[Array]) -> bool:
    """Whether the inputs and outputs of a call are few numbers, of types that are the same every time."""
    return (
        None not in call.dtypes
        and all(array.dtype.kind in "fiub" for array in arrays)
        and sum(array.nbytes for array in arrays) <= MAX_GROUPED_BYTES
    )


class PredictGroup:
    """Predicts of one call, in one second, whose inputs and outputs have the same shapes."""

    __slots__ = ("_call", "_forms", "_seconds", "_values", "count", "exchange_bytes")

    def __init__(self, call: Call, arrays: Sequence[Array], seconds: int) -> None:
        """A group for predicts like this one, in this second since 1970; it is empty."""
        self._call = call
        self._forms = tuple([Form(each.dtype, each.shape, each.nbytes) for each in arrays])
        self._seconds = seconds
        self._values = bytearray()
        self.count = 0
        self.exchange_bytes = sum([form.nbytes for form in self._forms])
        """how much memory each takes"""

    @property
    def model(self) -> str:
        return self._call.servable.model

    @property
    def size_bytes(self) -> int:
        return len(self._values)

    def add(self, arrays: Iterable[Array]) -> None:
        """Keep the values of one more: its inputs and its outputs, in their order."""
        values = self._values
        for array in arrays:
            values += array.tobytes()
        self.count += 1

    def records(self, writing: Writing) -> list[bytes]:
        call = self._call
        servable, signature_name = call.servable, call.signature.name
        head = metadata(servable, signature_name, writing.rate_of(servable.model), self._seconds)
        first, *others = _around_values(
            servable.model, servable.version, signature_name, call.aliases, call.outputs, self._forms
        )
        values = np.frombuffer(self._values, np.uint8).reshape(self.count, self.exchange_bytes)
        sizes = [form.nbytes for form in self._forms]
        columns = [self._repeated(head + first)]
        for column, piece in zip(np.split(values, np.cumsum(sizes)[:-1], axis=1), others, strict=True):
            columns += (column, self._repeated(piece))
        rows = np.concatenate(columns, axis=1)
        records: list[bytes] = rows.view(f"V{rows.shape[1]}").ravel().tolist()
        return records

    def _repeated(self, piece: bytes) -> NDArray[np.uint8]:
        return np.broadcast_to(np.frombuffer(piece, np.uint8), (self.count, len(piece)))


@lru_cache(1024)
def _around_values(
    model: str,
    version: int,
    signature_name: str,
    aliases: tuple[str, ...],
    outputs: tuple[str, ...],
    forms: tuple[Form, ...],
) -> list[bytes]:
    """What is before, between and after the values in the field ``predict_log``."""
    request, response = wire.PackedPredictRequest(), wire.PackedPredictResponse()
    name_model(request, response, model, version, signature_name)
    asked = _tensors(_number(request, "inputs"), zip(aliases, forms, strict=False))
    answered = _tensors(_number(response, "outputs"), zip(outputs, forms[len(aliases) :], strict=True))
    parts = _message(REQUEST, [request.SerializeToString(), *asked])
    parts += _message(RESPONSE, [response.SerializeToString(), *answered])
    return _pieces(_message(PREDICT_LOG, parts))


def _tensors(number: int, forms: Iterable[tuple[str, Form]]) -> _Parts:
    """The entries of a map of tensors."""
    parts: _Parts = []
    for name, form in forms:
        tensor = wire.PackedTensorProto(dtype=data_type_of(form.dtype))  # type: ignore[arg-type]  # a number is fine
        tensor.tensor_shape.SetInParent()
        for size in form.shape:
            tensor.tensor_shape.dim.add(size=size)
        content = _message(_number(tensor, "tensor_content"), [form.nbytes])
        parts += _message(
            number, [message_field(1, name.encode()), *_message(2, [tensor.SerializeToString(), *content])]
        )
    return parts


def _message(number: int, parts: _Parts) -> _Parts:
    size = sum(each if isinstance(each, int) else len(each) for each in parts)
    return [varint(number << 3 | 2) + varint(size), *parts]


def _number(message: object, name: str) -> int:
    return int(message.DESCRIPTOR.fields_by_name[name].number)  # type: ignore[attr-defined]  # every message has it


def _pieces(parts: _Parts) -> list[bytes]:
    """What is before, between and after what differs from record to record."""
    pieces = [b""]
    for part in parts:
        if isinstance(part, int):
            pieces.append(b"")
        else:
            pieces[-1] += part
    return pieces
