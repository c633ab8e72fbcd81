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
MAX_QUICK_BYTES = 2**16

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

    def quick_record(self, call: Call, arrays: Sequence[Array], timestamp_seconds: int) -> bytes | None:
        """
        The ``PredictionLog`` of one exchange; None where it is large, or one like it has not been written yet.

        Args:
            call: What was asked.
            arrays: Its inputs and its outputs, in their order.
            timestamp_seconds: When, since 1970.
        """
        known = self._calls.get(id(call))
        if known is None or known.call() is not call:
            return None
        pieces = known.pieces.get(tuple([array.shape for array in arrays]))
        if pieces is None:
            return None
        if known.timestamp_seconds != timestamp_seconds:
            rate = self._rate_of(call.servable.model)
            known.metadata = metadata(call.servable, call.signature.name, rate, timestamp_seconds)
            known.timestamp_seconds = timestamp_seconds
        joined = [known.metadata, pieces[0]]
        for array, piece in zip(arrays, pieces[1:], strict=True):
            joined += (array.tobytes(), piece)
        return b"".join(joined)

    def record(self, call: Call, arrays: Sequence[Array], timestamp_seconds: int) -> bytes:
        """The same for any exchange; what is around the values is kept for others that differ in these alone."""
        self._remember(call, arrays)
        if (record := self.quick_record(call, arrays, timestamp_seconds)) is not None:
            return record
        rate = self._rate_of(call.servable.model)
        return metadata(call.servable, call.signature.name, rate, timestamp_seconds) + self._written(call, arrays)

    def _remember(self, call: Call, arrays: Sequence[Array]) -> None:
        """What is around the values, where these are few numbers of a known length that are kept as they are."""
        known = self._calls.get(id(call))
        if known is None or known.call() is not call:
            if len(self._calls) >= _MAX_CALLS:
                self._calls.clear()
            known = self._calls[id(call)] = _Known(weakref.ref(call))
        shapes = tuple([array.shape for array in arrays])
        is_fixed = None not in call.dtypes and all(array.dtype.kind in "fiub" for array in arrays)
        if shapes in known.pieces or self._has_columns or not is_fixed:
            return
        if sum(array.nbytes for array in arrays) <= MAX_QUICK_BYTES:
            if len(known.pieces) >= _MAX_SHAPES:
                known.pieces.clear()
            known.pieces[shapes] = _pieces(_predict_log(call, arrays))

    def _written(self, call: Call, arrays: Sequence[Array]) -> bytes:
        inputs, outputs = arrays[: len(call.aliases)], arrays[len(call.aliases) :]
        request, response = wire.PackedPredictRequest(), wire.PackedPredictResponse()
        for name, array in self._columns.kept(call.aliases, inputs):
            encode(array, request.inputs[name])
        for name, array in self._columns.kept(call.outputs, outputs):
            encode(array, response.outputs[name])
        _fill_specs(call, request, response)
        parts = ((_REQUEST, request.SerializeToString()), (_RESPONSE, response.SerializeToString()))
        exchange = b"".join(message_field(number, content) for number, content in parts)
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
