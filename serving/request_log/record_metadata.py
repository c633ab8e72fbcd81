"""
What every record begins with: which version answered, which share of the requests is kept, and when it was.

Source: tensorflow_serving/apis/prediction_log.proto, logging.proto
"""

from __future__ import annotations

from functools import lru_cache

from tensorflow_serving.apis import logging_pb2

from serving.protocol.tensors import varint
from serving.runtime.servable import Servable

_LOG_METADATA, _TIMESTAMP_SECONDS = 1, 4


def metadata(servable: Servable, signature_name: str, rate: float, timestamp_seconds: int) -> bytes:
    """The field ``log_metadata`` of a ``PredictionLog``."""
    return _metadata(servable.model, servable.version, signature_name, rate, timestamp_seconds)


def message_field(number: int, content: bytes) -> bytes:
    """A field of protobuf that holds a message, a text or bytes."""
    return varint(number << 3 | 2) + varint(len(content)) + content


@lru_cache(64)
def _metadata(model: str, version: int, signature_name: str, rate: float, timestamp_seconds: int) -> bytes:
    head = _head(model, version, signature_name, rate)
    return message_field(_LOG_METADATA, head + varint(_TIMESTAMP_SECONDS << 3) + varint(timestamp_seconds))


@lru_cache(256)
def _head(model: str, version: int, signature_name: str, rate: float) -> bytes:
    message = logging_pb2.LogMetadata()
    spec = message.model_spec
    spec.name, spec.version.value, spec.signature_name = model, version, signature_name
    message.sampling_config.sampling_rate = rate
    content: bytes = message.SerializeToString()
    return content
