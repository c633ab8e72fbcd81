"""
Answers requests over REST: TensorFlow Serving's paths, and ``/healthz``, ``/readyz`` and ``/hotswap/models``.

Source: tensorflow_serving/model_servers/http_server.cc, http_rest_api_handler.cc
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import replace
from http import HTTPStatus
from typing import Any

from serving.access import Access, Role
from serving.inference.data_plane import DataPlane
from serving.protocol.errors import InvalidRequest, ServingError
from serving.rest.answers import Exchange, error_response
from serving.rest.example_inference import ExampleInference
from serving.rest.http_messages import METHODS, TEXT, Head, Respond, Response, error_page
from serving.rest.model_info import metadata_page, status_page
from serving.rest.model_report import report_page
from serving.rest.off_loop import OffLoop
from serving.rest.predict import Predicts
from serving.rest.routes import Route, is_v1, route_of, split_target

MAX_ROUTES = 1024
_OPEN_TARGETS = {b"/healthz", b"/readyz"}
_CORS_HEADERS = (
    (b"Access-Control-Allow-Origin", b"*"),
    (b"Access-Control-Allow-Methods", b"POST, GET"),
    (b"Access-Control-Allow-Headers", b"Content-Type"),
)

_Answering = Coroutine[Any, Any, None]


class RestApi:
    """What is answered to each request."""

    def __init__(self, data_plane: DataPlane, access: Access | None = None) -> None:
        self._data_plane = data_plane
        self._access = access or Access()
        self._is_open = self._access.is_open(Role.PREDICT)
        self._has_cors = data_plane.settings.rest_api_enable_cors_support
        milliseconds = data_plane.settings.rest_api_timeout_in_ms
        timeout_seconds = milliseconds / 1000 if milliseconds > 0 else None
        self._off_loop = OffLoop()
        self._predicts = Predicts(data_plane, self._off_loop, timeout_seconds)
        self._examples = ExampleInference(data_plane, self._off_loop, timeout_seconds)
        self._routes: dict[bytes, Route] = {}
        self._own_paths: dict[str, Callable[[], Response]] = {
            "/healthz": lambda: Response(HTTPStatus.OK, b"ok\n", TEXT),
            "/readyz": self._readiness,
        }

    def handle(self, head: Head, body: bytes, respond: Respond) -> _Answering | None:
        """Answer one request; the handler of an `HttpServer`."""
        if not self._is_open and (refusal := self._refusal(head, Role.PREDICT)):
            respond(refusal)
            return None
        route = self._routes.get(head.target) if head.method == "POST" else None
        if route is None:
            found = self._find(head)
            if isinstance(found, Response):
                respond(found)
                return None
            if found is None:
                return self._report(head, respond)
            route = found
        if self._has_cors:
            respond = _with_cors_headers(respond)
        exchange = Exchange(route, respond, self._data_plane.metrics, self._off_loop)
        if route.verb == "predict":
            return self._predicts.answer(exchange, head, body)
        if route.verb:
            return exchange.end_with(self._examples.answer(route, head, body))
        self._inform(exchange)
        return None

    def _find(self, head: Head) -> Route | Response | None:
        """What a request asks for below ``/v1/``, or the answer to one for anything else; None for the report."""
        method = head.method
        if method.encode() not in METHODS:
            return error_page(HTTPStatus.NOT_IMPLEMENTED)
        parts = split_target(head.target)
        if parts is None:
            return error_page(HTTPStatus.BAD_REQUEST)
        target, path = parts
        metrics_path = self._data_plane.metrics_path
        if metrics_path and path == metrics_path:
            return self._metrics(target, metrics_path)
        if path in self._own_paths and method == "GET":
            return self._own_paths[path]()
        if path == "/hotswap/models" and method == "GET":
            return None
        if not is_v1(target):
            return error_page(HTTPStatus.NOT_FOUND)
        if method == "OPTIONS":
            return self._preflight(head.headers)
        route = route_of(method, target)
        if method == "POST" and route.spec is not None and len(self._routes) < MAX_ROUTES:
            self._routes[head.target] = route
        return route

    def _inform(self, exchange: Exchange) -> None:
        """Answer with states or signatures, or why that is not what was asked for."""
        route = exchange.route
        if route.is_version_too_big:
            self._data_plane.metrics.count_failure("", "INVALID_ARGUMENT")
            exchange.respond(Response(HTTPStatus.BAD_REQUEST, b""))
        elif route.spec is None:
            exchange.fail(InvalidRequest(route.refusal))
        else:
            page, spec = metadata_page if route.with_metadata else status_page, route.spec
            exchange.end(lambda: page(self._data_plane, spec))

    def _metrics(self, target: str, path: str) -> Response:
        if target != path:
            return Response(HTTPStatus.BAD_REQUEST, f"Unexpected path: {target}. Should be {path}".encode(), TEXT)
        return Response(HTTPStatus.OK, self._data_plane.metrics_page().encode(), TEXT)

    def _preflight(self, headers: list[tuple[bytes, bytes]]) -> Response:
        origin = next((value for name, value in headers if name == b"origin"), b"")
        allowed = b"http://" in origin or b"https://" in origin
        status = HTTPStatus.OK if allowed else HTTPStatus.BAD_REQUEST
        return Response(status, b"", b"text/html; charset=ISO-8859-1", _CORS_HEADERS if self._has_cors else ())

    def _readiness(self) -> Response:
        if self._data_plane.ready():
            return Response(HTTPStatus.OK, b"ready\n", TEXT)
        return Response(HTTPStatus.SERVICE_UNAVAILABLE, b"not every model has a version available\n", TEXT)

    async def _report(self, head: Head, respond: Respond) -> None:
        respond(self._refusal(head, Role.ADMIN) or await report_page(self._data_plane))

    def _refusal(self, head: Head, role: Role) -> Response | None:
        """The answer to a request that must carry a token and does not; a browser asks what is allowed without any."""
        if head.target in _OPEN_TARGETS or head.method == "OPTIONS":
            return None
        try:
            self._access.check(dict(head.headers).get(b"authorization"), role)
        except ServingError as exc:
            return replace(error_response(exc), headers=((b"WWW-Authenticate", b"Bearer"),))
        return None


def _with_cors_headers(respond: Respond) -> Respond:
    return lambda response: respond(replace(response, headers=(*response.headers, *_CORS_HEADERS)))
