"""
The exchanges that are logged, and the bytes of their ``PredictionLog``.

Source: tensorflow_serving/apis/prediction_log.proto, logging.proto
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tensorflow_serving.apis import prediction_log_pb2

from serving.protocol import wire_pb2 as wire
from serving.protocol.tensors import Array, encode
from serving.request_log.columns import Columns
from serving.request_log.record_metadata import message_field, metadata
from serving.runtime.call import Call
from serving.runtime.servable import Servable

PREDICT_LOG, REQUEST, RESPONSE = 6, 1, 2
"""numbers of fields in ``PredictionLog`` and ``PredictLog``"""
_VALUES_LOOKED_AT = 256
_STRING_OVERHEAD_BYTES = 40


@dataclass(slots=True)
class Writing:
    """What the records of a log have in common."""

    columns: Columns
    rate_of: Callable[[str], float]
    timestamp_seconds: int = 0


class Exchange(Protocol):
    """A request that was answered, or several of one model."""

    @property
    def model(self) -> str: ...

    @property
    def count(self) -> int:
        """How many there are."""
        ...

    @property
    def size_bytes(self) -> int:
        """About how much memory it takes."""
        ...

    def records(self, writing: Writing) -> list[bytes]:
        """The bytes of the ``PredictionLog`` of each."""
        ...


class PredictExchange:
    """A predict: the arrays that went into a call, and those that came out."""

    __slots__ = ("_arrays", "_call", "size_bytes")
    count = 1

    def __init__(self, call: Call, arrays: Sequence[Array], outputs: list[Array]) -> None:
        self._call = call
        # Of what is a part of something, as of what several requests were answered, the rest need not wait.
        self._arrays = [*arrays, *(each if each.base is None else each.copy() for each in outputs)]
        self.size_bytes = sum(
            [each.nbytes if each.dtype.char != "O" else _strings_bytes(each) for each in self._arrays]
        )

    @property
    def model(self) -> str:
        return self._call.servable.model

    def records(self, writing: Writing) -> list[bytes]:
        call = self._call
        servable, signature_name = call.servable, call.signature.name
        inputs, outputs = self._arrays[: len(call.aliases)], self._arrays[len(call.aliases) :]
        request, response = wire.PackedPredictRequest(), wire.PackedPredictResponse()
        name_model(request, response, servable.model, servable.version, signature_name)
        for name, array in writing.columns.kept(call.aliases, inputs):
            encode(array, request.inputs[name])
        for name, array in writing.columns.kept(call.outputs, outputs):
            encode(array, response.outputs[name])
        parts = ((REQUEST, request.SerializeToString()), (RESPONSE, response.SerializeToString()))
        exchange = b"".join([message_field(number, content) for number, content in parts])
        rate = writing.rate_of(servable.model)
        head = metadata(servable, signature_name, rate, writing.timestamp_seconds)
        return [head + message_field(PREDICT_LOG, exchange)]


class ExampleExchange:
    """A classify, regress or multi-inference: the examples that came, and what writes the rest into its log."""

    __slots__ = ("_fill", "_kind", "_servable", "_signature_name", "_source", "size_bytes")
    count = 1

    def __init__(
        self, kind: str, servable: Servable, signature_name: str, source: Any, fill: Callable[[Any], None]
    ) -> None:
        self._kind = kind
        self._servable = servable
        self._signature_name = signature_name
        self._source = source
        self._fill = fill
        self.size_bytes = int(source.ByteSize())

    @property
    def model(self) -> str:
        return self._servable.model

    def records(self, writing: Writing) -> list[bytes]:
        record = prediction_log_pb2.PredictionLog()
        log = getattr(record, self._kind)
        log.request.input.CopyFrom(self._source)
        for example in _examples(log.request.input) if writing.columns else ():
            writing.columns.redact_features(example.features.feature)
        self._fill(log)
        content: bytes = record.SerializeToString()
        rate = writing.rate_of(self.model)
        return [metadata(self._servable, self._signature_name, rate, writing.timestamp_seconds) + content]


def name_model(
    request: wire.PackedPredictRequest,
    response: wire.PackedPredictResponse,
    model: str,
    version: int,
    signature_name: str,
) -> None:
    """Fill in what was asked, and which version answered."""
    for spec in (request.model_spec, response.model_spec):
        spec.name, spec.signature_name = model, signature_name
    response.model_spec.version.value = version


def _examples(given: Any) -> Iterator[Any]:
    """All that an ``Input`` has, with their context."""
    yield from given.example_list.examples
    yield from given.example_list_with_context.examples
    if given.example_list_with_context.HasField("context"):
        yield given.example_list_with_context.context


def _strings_bytes(array: Array) -> int:
    """About the memory that strings take, as some of them tell."""
    if not array.size:
        return 0
    some = array.ravel()[:: -(-array.size // _VALUES_LOOKED_AT)]
    return int(array.size * (_STRING_OVERHEAD_BYTES + sum(map(len, some)) / len(some)))
