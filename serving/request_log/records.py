"""
Makes the records of the request log: ``PredictionLog`` messages as bytes.

A predict is written as the server has read it, whether it came over REST or gRPC. The messages around its tensors are
put together from their bytes, as they differ in these alone.

Source: tensorflow_serving/apis/prediction_log.proto, logging.proto
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Protocol

from tensorflow_serving.apis import logging_pb2, prediction_log_pb2

from serving.protocol import wire_pb2 as wire
from serving.protocol.tensors import Array, encode, varint
from serving.request_log.columns import Columns
from serving.runtime.call import Call
from serving.runtime.servable import Servable

_METADATA, _TIMESTAMP_SECONDS, _PREDICT = 1, 4, 6
_VALUES_LOOKED_AT = 256
_STRING_OVERHEAD_BYTES = 40


class Exchange(Protocol):
    """A request that was answered."""

    @property
    def model(self) -> str: ...

    @property
    def size_bytes(self) -> int:
        """About how much memory it takes."""
        ...

    def record(self, columns: Columns, rate: float) -> bytes:
        """The bytes of its ``PredictionLog``."""
        ...


class PredictExchange:
    """A predict: the arrays that went into a call, and those that came out."""

    __slots__ = ("_arrays", "_call", "_outputs")

    def __init__(self, call: Call, arrays: Sequence[Array], outputs: Sequence[Array]) -> None:
        self._call = call
        self._arrays = arrays
        self._outputs = [array if array.base is None else array.copy() for array in outputs]
        """copied where they are part of what several requests were answered"""

    @property
    def model(self) -> str:
        return self._call.servable.model

    @property
    def size_bytes(self) -> int:
        return sum(map(_size_bytes, (*self._arrays, *self._outputs)))

    def record(self, columns: Columns, rate: float) -> bytes:
        call, servable = self._call, self._call.servable
        request, response = wire.PackedPredictRequest(), wire.PackedPredictResponse()
        for name, array in columns.kept(call.aliases, self._arrays):
            encode(array, request.inputs[name])
        for name, array in columns.kept(call.outputs, self._outputs):
            encode(array, response.outputs[name])
        asked, answered = _specs(servable.model, servable.version, call.signature.name)
        predict = _field(1, asked + request.SerializeToString()) + _field(2, answered + response.SerializeToString())
        return _metadata(servable.model, servable.version, call.signature.name, rate) + _field(_PREDICT, predict)


class ExampleExchange:
    """A classify, regress or multi-inference: the examples that came, and what writes the rest into its log."""

    __slots__ = ("_fill", "_kind", "_servable", "_signature_name", "_source")

    def __init__(
        self, kind: str, servable: Servable, signature_name: str, source: Any, fill: Callable[[Any], None]
    ) -> None:
        self._kind = kind
        self._servable = servable
        self._signature_name = signature_name
        self._source = source
        self._fill = fill

    @property
    def model(self) -> str:
        return self._servable.model

    @property
    def size_bytes(self) -> int:
        return int(self._source.ByteSize())

    def record(self, columns: Columns, rate: float) -> bytes:
        record = prediction_log_pb2.PredictionLog()
        log = getattr(record, self._kind)
        log.request.input.CopyFrom(self._source)
        for example in _examples(log.request.input) if columns else ():
            columns.redact_features(example.features.feature)
        self._fill(log)
        content: bytes = record.SerializeToString()
        return _metadata(self._servable.model, self._servable.version, self._signature_name, rate) + content


def _examples(given: Any) -> Iterator[Any]:
    """All that an ``Input`` has, with their context."""
    yield from given.example_list.examples
    yield from given.example_list_with_context.examples
    if given.example_list_with_context.HasField("context"):
        yield given.example_list_with_context.context


@lru_cache(256)
def _specs(model: str, version: int, signature_name: str) -> tuple[bytes, bytes]:
    """The ``model_spec`` of a request and of its answer, as bytes of the messages around them."""
    request = wire.PackedPredictRequest(model_spec=wire.ModelSpec(name=model, signature_name=signature_name))
    response = wire.PackedPredictResponse()
    response.model_spec.name, response.model_spec.signature_name = model, signature_name
    response.model_spec.version.value = version
    return request.SerializeToString(), response.SerializeToString()


@lru_cache(256)
def _metadata_head(model: str, version: int, signature_name: str, rate: float) -> bytes:
    metadata = logging_pb2.LogMetadata()
    spec = metadata.model_spec
    spec.name, spec.version.value, spec.signature_name = model, version, signature_name
    metadata.sampling_config.sampling_rate = rate
    content: bytes = metadata.SerializeToString()
    return content


def _metadata(model: str, version: int, signature_name: str, rate: float) -> bytes:
    """The ``log_metadata`` of an exchange that ended just now."""
    head = _metadata_head(model, version, signature_name, rate)
    return _field(_METADATA, head + varint(_TIMESTAMP_SECONDS << 3) + varint(int(time.time())))


def _field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def _size_bytes(array: Array) -> int:
    """About the memory that an array takes; its strings are counted by some of them."""
    if array.dtype != object or not array.size:
        return array.nbytes
    some = array.ravel()[:: -(-array.size // _VALUES_LOOKED_AT)]
    return int(array.size * (_STRING_OVERHEAD_BYTES + sum(map(len, some)) / len(some)))
