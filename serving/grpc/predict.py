"""
Answers predicts over gRPC, all in one lane: read → bind → submit → write.

A call is answered by a callback, without a task of its own where the server can do that (see quick_grpc). What is large
is read and written in a thread, by the same lane.

Source: tensorflow_serving/apis/predict.proto, tensorflow_serving/model_servers/prediction_service_impl.cc
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import grpc
from google.protobuf.message import DecodeError

from serving.grpc.model_specs import required_spec
from serving.grpc.predict_answers import PredictAnswers
from serving.grpc.predict_requests import MAX_KEPT_BYTES, PredictRequest, PredictRequests
from serving.grpc.statuses import Trailer, shortened, version_trailer
from serving.inference.batching import Result
from serving.inference.data_plane import DataPlane
from serving.inference.monitoring import Metrics
from serving.protocol.errors import FailedPrecondition, ServingError
from serving.protocol.signature import choose_signature
from serving.protocol.tensors import Array
from serving.runtime.call import Call
from serving.runtime.requested import decode_inputs

log = logging.getLogger(__name__)

MAX_INLINE_WRITE_BYTES = 2**20


class PredictCall(Protocol):
    """One call that waits for an answer; it is ended once, by either method."""

    def succeed(self, response: bytes, trailer: Trailer) -> None: ...

    def fail(self, code: grpc.StatusCode, message: str, trailer: Trailer) -> None: ...


class Predicts:
    """Answers the calls of ``PredictionService.Predict``."""

    def __init__(self, data_plane: DataPlane, as_content: bool) -> None:
        self._data_plane = data_plane
        self._requests = PredictRequests()
        self._answers = PredictAnswers(as_content)
        self._loop = asyncio.get_running_loop()

    def answer(self, content: bytes, call: PredictCall) -> None:
        """Answer the request in `content`, in this turn of the event loop or later."""
        exchange = _Exchange(call, self._data_plane.metrics)
        read = partial(self._requests.FromString, content)
        if len(content) <= MAX_KEPT_BYTES:
            self._submit(exchange, read)
        else:
            self._in_thread(read, partial(self._submit, exchange))

    async def answer_awaited(self, content: bytes, context: Any) -> bytes:
        """Answer the request in `content`; a handler for servers that know no other way."""
        call = _AwaitedCall(self._loop.create_future())
        self.answer(content, call)
        code, result, trailer = await call.ended
        context.set_trailing_metadata(trailer)
        if code is not grpc.StatusCode.OK:
            await context.abort(code, result)
        response: bytes = result
        return response

    def _submit(self, exchange: _Exchange, read: Callable[[], PredictRequest]) -> None:
        try:
            request = read()
            exchange.model = request.model_spec.name
            call, arrays = self._bound(request, exchange)
        except Exception as exc:
            exchange.fail(exc)
        else:
            self._data_plane.submit(call, arrays, partial(self._write, exchange, call))

    def _bound(self, request: PredictRequest, exchange: _Exchange) -> tuple[Call, list[Array]]:
        models = self._data_plane.models
        if (bound := request.bound(models.changes)) is not None:
            exchange.trailer = version_trailer(bound[0].servable.version)
            return bound
        message = request.message
        servable = models.find(required_spec(message))
        exchange.trailer = version_trailer(servable.version)
        signature = choose_signature(servable.signatures, message.model_spec.signature_name, _no_signature)
        self._data_plane.check_predict_method(signature)
        inputs = decode_inputs(signature, message.inputs) if request.inputs is None else request.inputs
        bound = self._data_plane.bind(servable, signature, inputs, message.output_filter)
        request.bind(models.changes, bound[0])
        return bound

    def _write(self, exchange: _Exchange, call: Call, result: Result) -> None:
        if isinstance(result, Exception):
            exchange.fail(result)
            return
        write = partial(self._answers.write, call, result)
        if sum(array.nbytes for array in result) <= MAX_INLINE_WRITE_BYTES:
            exchange.end(write)
        else:
            self._in_thread(write, exchange.end)

    def _in_thread(self, function: Callable[[], Any], then: Callable[[Callable[[], Any]], None]) -> None:
        self._loop.run_in_executor(None, function).add_done_callback(lambda done: then(done.result))


def _no_signature(name: str) -> FailedPrecondition:
    return FailedPrecondition(f'Serving signature key "{name}" not found.')


class _Exchange:
    """One call, counted when it ends."""

    __slots__ = ("_call", "_metrics", "_started", "model", "trailer")

    def __init__(self, call: PredictCall, metrics: Metrics) -> None:
        self.model = ""
        self.trailer: Trailer = ()
        self._call = call
        self._metrics = metrics
        self._started = time.perf_counter()

    def end(self, write: Callable[[], bytes]) -> None:
        try:
            response = write()
        except Exception as exc:
            self.fail(exc)
        else:
            self._call.succeed(response, self.trailer)
            self._metrics.count_answer(self.model, "Predict", "GRPC", time.perf_counter() - self._started)

    def fail(self, exc: Exception) -> None:
        if isinstance(exc, ServingError):
            self._metrics.count_failure(self.model, exc.code.name)
            self._call.fail(exc.code, shortened(exc.message), self.trailer)
        elif isinstance(exc, DecodeError):
            self._call.fail(grpc.StatusCode.INTERNAL, "", self.trailer)
        else:
            log.error("predict failed model=%s", self.model, exc_info=exc)
            self._call.fail(grpc.StatusCode.UNKNOWN, f"{type(exc).__name__}: {exc}", self.trailer)


class _AwaitedCall:
    """A call whose handler awaits the end of it: code, response or message, trailer."""

    def __init__(self, ended: asyncio.Future[tuple[grpc.StatusCode, Any, Trailer]]) -> None:
        self.ended = ended

    def succeed(self, response: bytes, trailer: Trailer) -> None:
        self._end(grpc.StatusCode.OK, response, trailer)

    def fail(self, code: grpc.StatusCode, message: str, trailer: Trailer) -> None:
        self._end(code, message, trailer)

    def _end(self, code: grpc.StatusCode, result: Any, trailer: Trailer) -> None:
        if not self.ended.done():  # cancelled by the client
            self.ended.set_result((code, result, trailer))
