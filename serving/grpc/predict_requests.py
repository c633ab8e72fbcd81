"""
Reads predict requests.

Requests of one client mostly differ in their values alone. Where the values of the only input are in one piece, the
bytes around them are kept: a request with the same bytes around its values is neither parsed nor, until something
changes, bound again.

Source: tensorflow_serving/apis/predict.proto
"""

from __future__ import annotations

import weakref
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from tensorflow_serving.apis import predict_pb2

from serving.protocol import wire_pb2 as wire
from serving.protocol.tensors import Array, decode, is_packed
from serving.runtime.call import Call

MAX_KEPT_BYTES = 2**20
"""Larger requests leave nothing behind, and can be read in any thread."""
_MIN_VALUES_BYTES = 8
_MAX_LENGTHS = 1024
_MAX_PER_LENGTH = 8


@dataclass(slots=True)
class _Frame:
    """The bytes before and after the values, their meaning, and the call they were last bound to."""

    head: bytes
    tail: bytes
    message: Any
    alias: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    bound: tuple[int, weakref.ref[Call]] | None = None


class PredictRequest:
    """
    A request; `message` has no inputs where they are decoded already.

    `inputs` are arrays by alias; None where one of them holds no tensor: which error that is depends on the signature.
    """

    __slots__ = ("_frame", "inputs", "message")

    def __init__(self, message: Any, inputs: dict[str, Array] | None, frame: _Frame | None = None) -> None:
        self.message = message
        self.inputs = inputs
        self._frame = frame

    @property
    def model_spec(self) -> Any:
        return self.message.model_spec

    def bound(self, changes: int) -> tuple[Call, list[Array]] | None:
        """What the last request that differed in its values alone was bound to since `changes`, with these values."""
        if self._frame is None or self.inputs is None or self._frame.bound is None:
            return None
        changes_then, reference = self._frame.bound
        call = reference() if changes_then == changes else None
        return None if call is None else (call, list(self.inputs.values()))

    def bind(self, changes: int, call: Call) -> None:
        """Remember for requests that differ in their values alone what this one was bound to since `changes`."""
        if self._frame is not None and len(call.aliases) == 1:
            self._frame.bound = changes, weakref.ref(call)


class PredictRequests:
    """Reads requests, and keeps what they have in common."""

    def __init__(self) -> None:
        self._frames: dict[int, deque[_Frame]] = {}

    def FromString(self, content: bytes) -> PredictRequest:  # noqa: N802  (protobuf's name)
        """
        The request in `content`.

        Raises:
            DecodeError: There is none.
        """
        for frame in self._frames.get(len(content), ()):
            if content.startswith(frame.head) and content.endswith(frame.tail):
                values: Array = np.ndarray(frame.shape, frame.dtype, content, len(frame.head))
                return PredictRequest(frame.message, {frame.alias: values}, frame)
        return self._parse(content)

    def _parse(self, content: bytes) -> PredictRequest:
        message = wire.PackedPredictRequest.FromString(content)
        is_packed_well = all(map(is_packed, message.inputs.values()))
        if not is_packed_well:
            message = predict_pb2.PredictRequest.FromString(content)
        try:
            inputs = {alias: decode(tensor) for alias, tensor in message.inputs.items()}
        except ValueError:
            return PredictRequest(message, None)
        frame = None
        if is_packed_well and len(inputs) == 1 and len(content) <= MAX_KEPT_BYTES:
            frame = self._remember(content, message, inputs)
        message.ClearField("inputs")
        return PredictRequest(message, inputs, frame)

    def _remember(self, content: bytes, message: Any, inputs: dict[str, Array]) -> _Frame | None:
        """Keep the bytes around the values of the only input, if these are in one piece."""
        ((alias, array),) = inputs.items()
        raw = _raw_values(message.inputs[alias], array) if array.nbytes <= len(content) else None
        if raw is None or content.count(raw) != 1:
            return None
        head, _, tail = content.partition(raw)
        if len(self._frames) >= _MAX_LENGTHS:
            self._frames.clear()
        frames = self._frames.setdefault(len(content), deque(maxlen=_MAX_PER_LENGTH))
        frame = _Frame(head, tail, message, alias, array.dtype, array.shape)
        frames.appendleft(frame)
        return frame


def _raw_values(tensor: Any, array: Any) -> bytes | None:
    """The one piece of the message that is the array's memory, if there is one."""
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiuc" or array.nbytes < _MIN_VALUES_BYTES:
        return None
    raw = array.tobytes()
    pieces = [[tensor.tensor_content]] if tensor.tensor_content else [tensor.float_val, tensor.double_val]
    return raw if [raw] in [list(piece) for piece in pieces] else None
