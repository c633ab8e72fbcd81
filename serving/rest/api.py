"""
How is the data plane spoken to over REST?

Each request is matched, decoded, put to the data plane, and its answer encoded; what goes wrong becomes a status and a
JSON error. Besides TensorFlow Serving's paths there are ``/healthz``, ``/readyz`` and ``/hotswap/models``, and answers
to inferences carry the version that gave them in the header ``model-version``.

Source: tensorflow_serving/model_servers/http_server.cc, http_rest_api_handler.cc
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
import weakref
import zlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import grpc
import numpy as np
import orjson
from google.protobuf import json_format
from tensorflow_serving.apis import input_pb2

from serving.access import BearerToken
from serving.inference import examples
from serving.inference.batching import Result
from serving.inference.data_plane import DataPlane
from serving.inference.replies import signature_map, status_response
from serving.protocol.errors import InvalidRequest, ServingError
from serving.protocol.model_spec import ModelSpec
from serving.protocol.signature import Signature, choose_signature
from serving.protocol.tensors import Array
from serving.protocol.unknown_operations import explained
from serving.repository.identity import is_same_directory
from serving.repository.stamp import Stamp
from serving.rest.http import JSON, METHODS, TEXT, Head, Respond, Response, error_page
from serving.rest.json_dialect import array, quoted
from serving.rest.json_examples import read_examples
from serving.rest.json_requests import (
    MAX_INLINE_PARSE_BYTES,
    read_body,
    read_huge_examples,
    read_huge_predict,
    read_plain_rows,
    read_predict,
)
from serving.rest.json_tensors import float_texts, write_columns, write_few_rows, write_rows
from serving.runtime.call import Call
from serving.runtime.example_tasks import Classifications, Regressions
from serving.runtime.servable import Servable, ServableHandle
from serving.settings import ServerSettings

log = logging.getLogger(__name__)

MAX_INFLATED_BYTES = 100 * 2**20
MAX_INLINE_BYTES = 2**18
MAX_ROUTES = 1024
_LARGE_AT_A_TIME = 2

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
_Work = Callable[..., Coroutine[Any, Any, Any]]
_VERBS = ("predict", "classify", "regress")
_OPEN_TARGETS = {b"/healthz", b"/readyz"}
_CORS_HEADERS = (
    (b"Access-Control-Allow-Origin", b"*"),
    (b"Access-Control-Allow-Methods", b"POST, GET"),
    (b"Access-Control-Allow-Headers", b"Content-Type"),
)
_VERSION = r"(?:(?:/versions/(?P<version>\d+))|(?:/labels/(?P<label>[^/:]+)))?"
_INFERENCE = re.compile(rf"/v1/models/(?P<name>[^/:]+){_VERSION}:(?P<verb>classify|regress|predict)", re.I | re.A)
_INFORMATION = re.compile(rf"/v1/models(?:/(?P<name>[^/:]+))?{_VERSION}(?:/(?P<metadata>metadata))?", re.I | re.A)
_V1 = re.compile(r"/v1/.*", re.I | re.S)
_CHARACTERS = r"[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9a-fA-F]{2}"
_AFTER_PATH = rf"(?:{_CHARACTERS}|[/?])*+"
_TARGET = re.compile(  # RFC 3986
    rf"(?:(?:[A-Za-z][A-Za-z0-9+.-]*+:)?//(?:{_CHARACTERS}|[\[\]])*+)?"
    rf"(?P<target>(?P<path>(?:{_CHARACTERS}|/)*+)(?:\?{_AFTER_PATH})?(?:#{_AFTER_PATH})?)"
)
_OK = int(HTTPStatus.OK)  # before Python 3.12 to get it from the class is a call
_INT64_MAX = 2**63 - 1


@dataclass(slots=True)
class _Route:
    """What a path below ``/v1/`` asks for; `refusal` says why there is no `spec`."""

    spec: ModelSpec | None = None
    verb: str = ""
    with_metadata: bool = False
    refusal: str = ""
    is_version_too_big: bool = False
    """beyond int64, which TensorFlow Serving answers with an empty body"""
    name: str = field(init=False)
    """of the model, for the metrics"""
    rows_call: tuple[int, weakref.ref[Call]] | None = None
    """what the last predict by rows was bound to, if all it takes is one float32, and after how many changes"""

    def __post_init__(self) -> None:
        self.name = self.spec.name if self.spec else ""


class RestApi:
    """What is answered to each request."""

    def __init__(self, data_plane: DataPlane, settings: ServerSettings, token: BearerToken | None = None) -> None:
        self._data_plane = data_plane
        self._settings = settings
        self._token = token
        milliseconds = settings.rest_api_timeout_in_ms
        self._timeout_seconds = milliseconds / 1000 if milliseconds > 0 else None
        self._routes: dict[bytes, _Route] = {}
        self._large = ThreadPoolExecutor(_LARGE_AT_A_TIME, "large-request")
        self._own_paths: dict[str, Callable[[], Response]] = {
            "/healthz": lambda: Response(HTTPStatus.OK, b"ok\n", TEXT),
            "/readyz": self._readiness,
        }

    def handle(self, head: Head, body: bytes, respond: Respond) -> Coroutine[Any, Any, Response] | None:
        """Answer one request; the handler of an `HttpServer`."""
        if self._token is not None and (refusal := _refusal(self._token, head)):
            respond(refusal)
            return None
        if self._settings.rest_api_enable_cors_support:
            return self._answer_with_cors(head, body)
        route = self._routes.get(head.target) if head.method == "POST" else None
        if route is None:
            found = self._find(head)
            if isinstance(found, Response):
                respond(found)
                return None
            if not isinstance(found, _Route):
                return found()
            route = found
        if route.verb == "predict" and len(body) <= MAX_INLINE_BYTES and b"gzip" not in head.encoding:
            return self._predict_soon(route, head, body, respond)
        return self._v1(route, head, body)

    async def _answer_with_cors(self, head: Head, body: bytes) -> Response:
        found = self._find(head)
        if isinstance(found, Response):
            return found
        if not isinstance(found, _Route):
            return await found()
        answer = await self._v1(found, head, body)
        return replace(answer, headers=(*answer.headers, *_CORS_HEADERS))

    def _find(self, head: Head) -> _Route | Response | Callable[[], Coroutine[Any, Any, Response]]:
        """What a request asks for below ``/v1/``, or the answer to one for anything else, or what gives it."""
        method = head.method
        if method.encode() not in METHODS:
            return error_page(HTTPStatus.NOT_IMPLEMENTED)
        match = _TARGET.fullmatch(head.target.decode("latin-1"))
        if match is None:
            return error_page(HTTPStatus.BAD_REQUEST)
        target, path = match["target"], match["path"]
        metrics_path = self._data_plane.metrics_path
        if metrics_path and path == metrics_path:
            return self._metrics(target, metrics_path)
        if path in self._own_paths and method == "GET":
            return self._own_paths[path]()
        if path == "/hotswap/models" and method == "GET":
            return self._models
        if not _V1.fullmatch(target):
            return error_page(HTTPStatus.NOT_FOUND)
        if method == "OPTIONS":
            return self._preflight(head.headers)
        route = _route(method, target)
        if method == "POST" and route.spec is not None and len(self._routes) < MAX_ROUTES:
            self._routes[head.target] = route
        return route

    def _predict_soon(
        self, route: _Route, head: Head, body: bytes, respond: Respond
    ) -> Coroutine[Any, Any, Response] | None:
        """Answer a small predict without a task of its own, if running the graph does not take long."""
        started = time.perf_counter()
        try:
            call, arrays, by_rows = self._bound(route, body)
        except ServingError as exc:
            respond(self._failed(route, exc))
            return None
        if not call.is_short(arrays):
            return self._v1(route, head, body)
        version = call.servable.version

        def done(result: Result) -> None:
            try:
                if isinstance(result, Exception):
                    raise result
                rows = write_few_rows(result[0]) if by_rows and len(result) == 1 else None
                if rows is not None:
                    answer = _inferred("predictions", rows, version)
                else:
                    answer = _predicted(dict(zip(call.outputs, result, strict=True)), by_rows, version)
            except ServingError as exc:
                respond(self._failed(route, exc))
            except Exception:
                log.exception("predict failed model=%s", route.name)
                respond(error_page(HTTPStatus.INTERNAL_SERVER_ERROR))
            else:
                respond(answer)
                seconds = time.perf_counter() - started
                self._data_plane.metrics.count_answer(route.name, route.verb, "REST", seconds)

        self._data_plane.submit(call, arrays, done)
        return None

    def _bound(self, route: _Route, content: bytes) -> tuple[Call, list[Array], bool]:
        """
        What a predict asks for, with which arrays, and whether it is in row form.

        Requests to one path mostly differ in their values alone: until something changes, plain rows go to the call
        that the last such request was bound to.
        """
        changes = self._data_plane.models.changes
        if route.rows_call is not None and route.rows_call[0] == changes:
            before = route.rows_call[1]()
            if before is not None and (rows := read_plain_rows(content)) is not None:
                return before, [rows], True
        assert route.spec is not None
        body, signature_name = read_body(content)
        servable = self._data_plane.models.find(route.spec)
        signature = self._signature(servable, signature_name)
        has_doubles = signature.name in servable.double_signatures
        inputs, by_rows = read_predict(content, body, signature, has_doubles)
        self._data_plane.check_predict_method(signature)
        call, arrays = self._data_plane.bind(servable, signature, inputs)
        if by_rows and not signature_name and servable.limits is None and call.dtypes == [np.float32]:
            route.rows_call = changes, weakref.ref(call)
        return call, arrays, by_rows

    async def _v1(self, route: _Route, head: Head, body: bytes) -> Response:
        if route.is_version_too_big:
            self._data_plane.metrics.count_failure("", "INVALID_ARGUMENT")
            return Response(HTTPStatus.BAD_REQUEST, b"")
        started = time.perf_counter()
        try:
            if route.spec is None:
                raise InvalidRequest(route.refusal)
            if route.verb:
                answer = await self._infer(route.verb, route.spec, head, body)
            else:
                answer = self._inform(route.spec, route.with_metadata)
        except ServingError as exc:
            self._data_plane.metrics.count_failure(route.name, exc.code.name)
            is_huge = len(exc.message) > MAX_INLINE_BYTES  # as it quotes the request
            return await self._in_thread(_error, exc) if is_huge else _error(exc)
        self._data_plane.metrics.count_answer(route.name, route.verb, "REST", time.perf_counter() - started)
        return answer

    def _failed(self, route: _Route, exc: ServingError) -> Response:
        self._data_plane.metrics.count_failure(route.name, exc.code.name)
        return _error(exc)

    async def _infer(self, verb: str, spec: ModelSpec, head: Head, body: bytes) -> Response:
        # What is large is read and written in a thread, so that others need not wait for all of it.
        in_place = len(body) <= MAX_INLINE_BYTES and b"gzip" not in head.encoding
        work = _in_place if in_place else self._in_thread
        content = await work(_content, head, body)
        is_huge = len(content) > MAX_INLINE_PARSE_BYTES
        if verb == "predict":
            return await (self._predict_huge(spec, content) if is_huge else self._predict(spec, content, work))
        if is_huge:
            signature_name, serialized = await self._in_thread(read_huge_examples, content)
            source = input_pb2.Input.FromString(serialized)
        else:
            fields, signature_name = await work(read_body, content)
            source = await work(read_examples, fields)
        with self._data_plane.models.acquire(spec) as handle:
            arguments = self._data_plane, handle, signature_name, source, self._timeout_seconds
            if verb == "classify":
                results = _classifications(await examples.classify(*arguments))
            else:
                results = _regressions(await examples.regress(*arguments))
            return _inferred("results", results, handle.version)

    async def _predict(self, spec: ModelSpec, content: bytes, work: _Work) -> Response:
        body, signature_name = await work(read_body, content)
        with self._data_plane.models.acquire(spec) as handle:
            signature = self._signature(handle.servable, signature_name)
            has_doubles = signature.name in handle.servable.double_signatures
            inputs, by_rows = await work(read_predict, content, body, signature, has_doubles)
            return await self._run(handle, signature, inputs, by_rows, work)

    async def _predict_huge(self, spec: ModelSpec, content: bytes) -> Response:
        try:
            handle = self._data_plane.models.acquire(spec)
        except ServingError:
            await self._in_thread(read_huge_predict, content, {}, ())  # what cannot be read is told first
            raise
        with handle:
            signatures, double_signatures = handle.servable.signatures, handle.servable.double_signatures
            signature_name, inputs, by_rows = await self._in_thread(
                read_huge_predict, content, signatures, double_signatures
            )
            signature = self._signature(handle.servable, signature_name)
            return await self._run(handle, signature, inputs, by_rows, self._in_thread)

    async def _run(
        self, handle: ServableHandle, signature: Signature, inputs: dict[str, Array], by_rows: bool, work: _Work
    ) -> Response:
        self._data_plane.check_predict_method(signature)
        outputs = await self._data_plane.run(handle.servable, signature, inputs, (), self._timeout_seconds)
        answer: Response = await work(_predicted, outputs, by_rows, handle.version)
        return answer

    @staticmethod
    def _signature(servable: Servable, name: str) -> Signature:
        return choose_signature(servable.signatures, name, _no_signature)

    async def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._large, function, *arguments)

    def _inform(self, spec: ModelSpec, with_metadata: bool) -> Response:
        if not with_metadata:
            status = _proto_json(status_response(self._data_plane, spec))
            return Response(HTTPStatus.OK, f"{status}\n".encode())
        with self._data_plane.models.acquire(spec) as handle:
            model_spec = {"name": handle.servable.model, "version": str(handle.version), "signature_name": ""}
            text = (
                f'{{\n"model_spec":{_indented(model_spec)}\n,\n'
                f'"metadata": {{"signature_def": {_proto_json(signature_map(handle))}\n}}\n}}\n'
            )
            return Response(HTTPStatus.OK, text.encode())

    def _metrics(self, target: str, path: str) -> Response:
        if target != path:
            return Response(HTTPStatus.BAD_REQUEST, f"Unexpected path: {target}. Should be {path}".encode(), TEXT)
        return Response(HTTPStatus.OK, self._data_plane.metrics_page().encode(), TEXT)

    def _preflight(self, headers: list[tuple[bytes, bytes]]) -> Response:
        origin = next((value for name, value in headers if name == b"origin"), b"")
        allowed = b"http://" in origin or b"https://" in origin
        status = HTTPStatus.OK if allowed else HTTPStatus.BAD_REQUEST
        cors_headers = _CORS_HEADERS if self._settings.rest_api_enable_cors_support else ()
        return Response(status, b"", b"text/html; charset=ISO-8859-1", cors_headers)

    def _readiness(self) -> Response:
        if self._data_plane.ready():
            return Response(HTTPStatus.OK, b"ready\n", TEXT)
        return Response(HTTPStatus.SERVICE_UNAVAILABLE, b"not every model has a version available\n", TEXT)

    async def _models(self) -> Response:
        repository = await self._data_plane.models.repository()
        rows = [row for name in self._data_plane.models.names() for row in self._versions(name)]
        if repository is not None:
            base_paths = self._data_plane.models.base_paths()
            await asyncio.to_thread(_tell_place, rows, base_paths, Path(repository.path))
        page = {
            "server": self._data_plane.id,
            "repository": repository,
            "default_version_label": self._settings.default_version_label or None,
            "models": rows,
        }
        return Response(HTTPStatus.OK, orjson.dumps(page, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))

    def _versions(self, model: str) -> list[dict[str, Any]]:
        labels = self._data_plane.models.labels(model)
        rows = []
        for status in self._data_plane.models.status(ModelSpec(model)):
            servable = self._data_plane.models.servable(model, status.version)
            stamp = (None if servable is None else Stamp.read(servable.path)) or Stamp()
            rows.append(
                {
                    "model": model,
                    "version": status.version,
                    "state": status.state.name,
                    "error": explained(status.message) or self._data_plane.models.problem(model),
                    "labels": sorted(label for label, version in labels.items() if version == status.version),
                    "digest": stamp.digest,
                    "run_id": stamp.run_id,
                    "path": None if servable is None else str(servable.path),
                    "requests": servable.usage.requests if servable is not None else 0,
                    "errors": servable.usage.errors if servable is not None else 0,
                    "signatures": {} if servable is None else self._data_plane.merging(servable),
                }
            )
        return rows


def _no_signature(name: str) -> InvalidRequest:
    return InvalidRequest(f'Serving signature name: "{name}" not found in signature def')


def _refusal(token: BearerToken, head: Head) -> Response | None:
    """The answer to a request that must carry a token and does not; a browser asks what is allowed without any."""
    if head.target in _OPEN_TARGETS or head.method == "OPTIONS":
        return None
    try:
        token.check(dict(head.headers).get(b"authorization"))
    except ServingError as exc:
        return replace(_error(exc), headers=((b"WWW-Authenticate", b"Bearer"),))
    return None


async def _in_place(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def _predicted(outputs: dict[str, Array], by_rows: bool, version: int) -> Response:
    if by_rows:
        return _inferred("predictions", write_rows(outputs), version)
    return _inferred("outputs", write_columns(outputs), version)


def _content(head: Head, body: bytes) -> bytes:
    """The body, inflated if need be; nothing when that does not work, as in TensorFlow Serving."""
    if b"gzip" not in head.encoding:
        return body
    inflate = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        content = inflate.decompress(body, MAX_INFLATED_BYTES + 1)
    except zlib.error:
        return b""
    complete = inflate.eof and not inflate.unused_data and len(content) <= MAX_INFLATED_BYTES
    return content if complete else b""


def _route(method: str, target: str) -> _Route:
    pattern = {"POST": _INFERENCE, "GET": _INFORMATION}.get(method)
    match = pattern.fullmatch(target) if pattern else None
    if match is None:
        return _Route(refusal=f"Malformed request: {method} {target}")
    version = int(match["version"]) if match["version"] is not None else None
    if version is not None and version > _INT64_MAX:
        return _Route(is_version_too_big=True)
    verb = match["verb"] if method == "POST" else ""
    if verb and verb not in _VERBS:
        return _Route(refusal=f"Malformed request: {method} {target}")
    if match["name"] is None:
        return _Route(refusal="Missing model name in request.")
    label = None if match["label"] is None else _unquote(match["label"])
    spec = ModelSpec(_unquote(match["name"]), version, label)
    return _Route(spec, verb, method == "GET" and match["metadata"] == "metadata")


def _unquote(text: str) -> str:
    return unquote_to_bytes(text).decode("utf-8", "surrogateescape")


def _error(exc: ServingError) -> Response:
    body = f'{{\n    "error": {quoted(exc.message)}\n}}'.encode("utf-8", "surrogateescape")
    return Response(_HTTP_STATUS.get(exc.code, HTTPStatus.INTERNAL_SERVER_ERROR), body)


def _inferred(key: str, value: str, version: int) -> Response:
    body = f'{{\n    "{key}": {value}\n}}'.encode("utf-8", "surrogateescape")
    return Response(_OK, body, JSON, _version_header(version))


def _version_header(version: int) -> tuple[tuple[bytes, bytes], ...]:
    return ((b"Model-Version", b"%d" % version),)


def _classifications(found: Classifications) -> str:
    rows = []
    for row in found:
        scores = float_texts(np.array([score for _, score in row], np.float32))
        labels = [quoted(label.decode("utf-8", "surrogateescape")) for label, _ in row]
        pairs = [f"[{label}, {score}]" for label, score in zip(labels, scores, strict=True)]
        rows.append(array(pairs, 2, single_line=True))
    return f"[{', '.join(rows)}\n    ]"


def _regressions(found: Regressions) -> str:
    return array(float_texts(np.array(found, np.float32)), 1, single_line=True)


def _proto_json(message: Any) -> str:
    fields = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return _indented(_in_order(fields, message.DESCRIPTOR))


def _in_order(value: Any, message: Any) -> Any:
    """A message with its fields in the order of their numbers; `message` describes it, None what is no message."""
    if message is None:
        return value
    if isinstance(value, list):
        return [_in_order(each, message) for each in value]
    if message.GetOptions().map_entry:
        values = message.fields_by_name["value"].message_type
        return {key: _in_order(each, values) for key, each in value.items()}
    fields = sorted(message.fields, key=lambda field: field.number)
    return {field.name: _in_order(value[field.name], field.message_type) for field in fields if field.name in value}


def _indented(value: Any) -> str:
    text = json.dumps(_without_fractions(value), indent=1, ensure_ascii=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e")


def _without_fractions(value: Any) -> Any:
    """The value with whole floats as integers, as protobuf's C++ library prints them."""
    if isinstance(value, dict):
        return {key: _without_fractions(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_fractions(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _tell_place(rows: Sequence[dict[str, Any]], base_paths: Mapping[str, Path], repository: Path) -> None:
    """Say of each row where its versions are looked for, and whether that and what is loaded is of `repository`."""
    for row in rows:
        path, base_path = row["path"], base_paths.get(row["model"])
        own = repository / row["model"]
        row["in_repository"] = None if path is None else is_same_directory(Path(path).parent, own)
        row["base_path"] = None if base_path is None else str(base_path)
        row["base_path_in_repository"] = None if base_path is None else is_same_directory(base_path, own)
