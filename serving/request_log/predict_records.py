"""
Makes the records of predicts, whichever protocol they came by.

Requests mostly differ in their values alone. Where these are numbers, they are written as ``tensor_content``, so that
what is around them is as long as before: it is kept by call and shapes, and a record is its pieces joined.

Source: tensorflow_serving/apis/prediction_log.proto, tensorflow/core/framework/tensor.proto
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from serving.protocol import wire_pb2 as wire
from serving.protocol.tensors import Array, data_type_of, encode, varint
from serving.request_log.columns import Columns
from serving.request_log.record_metadata import message_field, metadata
from serving.runtime.call import Call

_PREDICT_LOG, _REQUEST, _RESPONSE = 6, 1, 2
_MAX_CALLS, _MAX_SHAPES = 256, 64

_Parts = list[bytes | int]
"""Bytes, and of what differs from record to record the length."""
_Shapes = tuple[tuple[int, ...], ...]


@dataclass(slots=True)
class _Known:
    """What the records of one call have in common."""

    call: weakref.ref[Call]
    pieces: dict[_Shapes, list[bytes]] = field(default_factory=dict)
    """by the shapes of inputs and outputs"""
    timestamp_seconds: int = -1
    metadata: bytes = b""
    """of that second"""


class PredictRecords:
    """Writes predicts as bytes, and keeps what they have in common."""

    def __init__(self, columns: Columns, rate_of: Callable[[str], float]) -> None:
        self._columns = columns
        self._has_columns = bool(columns)
        self._rate_of = rate_of
        self._calls: dict[int, _Known] = {}

    def record(self, call: Call, arrays: Sequence[Array], timestamp_seconds: int) -> bytes:
        """
        The ``PredictionLog`` of one exchange.

        Args:
            call: What was asked.
            arrays: Its inputs and its outputs, in their order.
            timestamp_seconds: When, since 1970.
        """
        known = self._calls.get(id(call))
        if known is None or known.call() is not call:
            known = self._remember(call)
        if known.timestamp_seconds != timestamp_seconds:
            rate = self._rate_of(call.servable.model)
            known.metadata = metadata(call.servable, call.signature.name, rate, timestamp_seconds)
            known.timestamp_seconds = timestamp_seconds
        shapes = tuple([array.shape for array in arrays])
        pieces = known.pieces.get(shapes) or self._pieces(known, call, arrays, shapes)
        if pieces is None:
            return known.metadata + self._written(call, arrays)
        joined = [known.metadata, pieces[0]]
        for array, piece in zip(arrays, pieces[1:], strict=True):
            joined += (array.tobytes(), piece)
        return b"".join(joined)

    def _remember(self, call: Call) -> _Known:
        if len(self._calls) >= _MAX_CALLS:
            self._calls.clear()
        known = self._calls[id(call)] = _Known(weakref.ref(call))
        return known

    def _pieces(self, known: _Known, call: Call, arrays: Sequence[Array], shapes: _Shapes) -> list[bytes] | None:
        """What is around the values; None where not all of them are numbers of a fixed length, kept as they are."""
        if self._has_columns or any(array.dtype.kind not in "fiub" for array in arrays):
            return None
        if len(known.pieces) >= _MAX_SHAPES:
            known.pieces.clear()
        known.pieces[shapes] = _pieces(_predict_log(call, arrays))
        return known.pieces[shapes]

    def _written(self, call: Call, arrays: Sequence[Array]) -> bytes:
        inputs, outputs = arrays[: len(call.aliases)], arrays[len(call.aliases) :]
        request, response = wire.PackedPredictRequest(), wire.PackedPredictResponse()
        for name, array in self._columns.kept(call.aliases, inputs):
            encode(array, request.inputs[name])
        for name, array in self._columns.kept(call.outputs, outputs):
            encode(array, response.outputs[name])
        _fill_specs(call, request, response)
        exchange = message_field(_REQUEST, request.SerializeToString()) + message_field(
            _RESPONSE, response.SerializeToString()
        )
        return message_field(_PREDICT_LOG, exchange)


def _fill_specs(call: Call, request: wire.PackedPredictRequest, response: wire.PackedPredictResponse) -> None:
    for spec in (request.model_spec, response.model_spec):
        spec.name, spec.signature_name = call.servable.model, call.signature.name
    response.model_spec.version.value = call.servable.version


def _predict_log(call: Call, arrays: Sequence[Array]) -> _Parts:
    """The field ``predict_log`` of a call that was given and gave arrays of these types and shapes."""
    request, response = wire.PackedPredictRequest(), wire.PackedPredictResponse()
    _fill_specs(call, request, response)
    inputs = _tensors(_number(request, "inputs"), zip(call.aliases, arrays, strict=False))
    outputs = _tensors(_number(response, "outputs"), zip(call.outputs, arrays[len(call.aliases) :], strict=True))
    parts = _message(_REQUEST, [request.SerializeToString(), *inputs])
    parts += _message(_RESPONSE, [response.SerializeToString(), *outputs])
    return _message(_PREDICT_LOG, parts)


def _tensors(number: int, arrays: Iterable[tuple[str, Array]]) -> _Parts:
    """The entries of a map of tensors."""
    parts: _Parts = []
    for name, array in arrays:
        tensor = wire.PackedTensorProto(dtype=data_type_of(array.dtype))  # type: ignore[arg-type]  # a number is fine
        tensor.tensor_shape.SetInParent()
        for size in array.shape:
            tensor.tensor_shape.dim.add(size=size)
        content = _message(_number(tensor, "tensor_content"), [array.nbytes])
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
