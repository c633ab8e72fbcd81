"""
Answers one request below ``/v1/``: the response, or the error as JSON, and its place in the metrics.

Answers to inferences carry the version that gave them in the header ``model-version``.

Source: tensorflow_serving/model_servers/http_server.cc
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus

import grpc

from serving.inference.monitoring import Metrics
from serving.protocol.errors import ServingError
from serving.rest.http_messages import JSON, Respond, Response, error_page
from serving.rest.json_dialect import quoted
from serving.rest.off_loop import MAX_INLINE_BYTES, OffLoop
from serving.rest.routes import Route

log = logging.getLogger(__name__)

_HTTP_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: HTTPStatus.BAD_REQUEST,
    grpc.StatusCode.FAILED_PRECONDITION: HTTPStatus.BAD_REQUEST,
    grpc.StatusCode.OUT_OF_RANGE: HTTPStatus.BAD_REQUEST,
    grpc.StatusCode.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
    grpc.StatusCode.PERMISSION_DENIED: HTTPStatus.FORBIDDEN,
    grpc.StatusCode.NOT_FOUND: HTTPStatus.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS: HTTPStatus.CONFLICT,
    grpc.StatusCode.ABORTED: HTTPStatus.CONFLICT,
    grpc.StatusCode.RESOURCE_EXHAUSTED: HTTPStatus.TOO_MANY_REQUESTS,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNIMPLEMENTED: HTTPStatus.NOT_IMPLEMENTED,
    grpc.StatusCode.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: HTTPStatus.GATEWAY_TIMEOUT,
}
_OK = int(HTTPStatus.OK)  # before Python 3.12 to get it from the class is a call


class Exchange:
    """One request and the way back to its client, counted when it is answered."""

    __slots__ = ("_metrics", "_off_loop", "_started", "respond", "route")

    def __init__(self, route: Route, respond: Respond, metrics: Metrics, off_loop: OffLoop) -> None:
        self.route = route
        self.respond = respond
        self._metrics = metrics
        self._off_loop = off_loop
        self._started = time.perf_counter()

    def end(self, write: Callable[[], Response]) -> None:
        """Answer with what `write` gives or raises."""
        try:
            response = write()
        except ServingError as exc:
            self.fail(exc)
        except Exception:
            log.exception("request failed model=%s", self.route.name)
            self.respond(error_page(HTTPStatus.INTERNAL_SERVER_ERROR))
        else:
            self._succeed(response)

    async def end_with(self, response: Awaitable[Response]) -> None:
        """Answer with what `response` gives or raises."""
        try:
            self._succeed(await response)
        except ServingError as exc:
            self.fail(exc)

    def fail(self, exc: ServingError) -> None:
        """Answer with an error; in a thread where its message quotes much of the request."""
        self._metrics.count_failure(self.route.name, exc.code.name)
        if len(exc.message) <= MAX_INLINE_BYTES:
            self.respond(error_response(exc))
        else:
            self._off_loop.run(error_response, exc).add_done_callback(lambda done: self.respond(done.result()))

    def _succeed(self, response: Response) -> None:
        self.respond(response)
        self._metrics.count_answer(self.route.name, self.route.verb, "REST", time.perf_counter() - self._started)


def error_response(exc: ServingError) -> Response:
    """An error as JSON, with the status for its code."""
    body = f'{{\n    "error": {quoted(exc.message)}\n}}'.encode("utf-8", "surrogateescape")
    return Response(_HTTP_STATUS.get(exc.code, HTTPStatus.INTERNAL_SERVER_ERROR), body)


def inference_response(key: str, value: str, version: int) -> Response:
    """The result of an inference, which is JSON already, under its key."""
    body = f'{{\n    "{key}": {value}\n}}'.encode("utf-8", "surrogateescape")
    return Response(_OK, body, JSON, _version_header(version))


def _version_header(version: int) -> tuple[tuple[bytes, bytes], ...]:
    return ((b"Model-Version", b"%d" % version),)
