"""
Answers predicts over REST, all in one lane: read → bind → submit → write.

What is large is read and written in a thread, by the same lane.

Source: tensorflow_serving/model_servers/http_rest_api_handler.cc
"""

from __future__ import annotations

import weakref
from collections.abc import Coroutine
from functools import partial
from typing import Any

import numpy as np

from serving.inference.batching import Result
from serving.inference.data_plane import DataPlane
from serving.protocol.errors import ServingError
from serving.protocol.signature import DEFAULT_SIGNATURE
from serving.protocol.tensors import Array
from serving.rest.answers import Exchange, inference_response
from serving.rest.content import inflated, is_large
from serving.rest.http_messages import Head, Response
from serving.rest.json_outputs import write_columns, write_few_rows, write_rows
from serving.rest.json_requests import PredictBody, check_body, read_plain_rows, read_predict
from serving.rest.off_loop import OffLoop
from serving.rest.routes import Route
from serving.runtime.call import Call
from serving.runtime.servable import Servable

MAX_INLINE_WRITE_BYTES = 2**16

_Bound = tuple[Call, list[Array], bool]
"""A call, what it is given, and whether the request is in row form."""


class Predicts:
    """Answers the requests whose path ends with ``:predict``."""

    def __init__(self, data_plane: DataPlane, off_loop: OffLoop, timeout_seconds: float | None) -> None:
        self._data_plane = data_plane
        self._models = data_plane.models
        self._off_loop = off_loop
        self._timeout_seconds = timeout_seconds

    def answer(self, exchange: Exchange, head: Head, body: bytes) -> Coroutine[Any, Any, None] | None:
        """Answer a request now or later; what is returned reads a large one."""
        if is_large(head, body):
            return self._answer_large(exchange, head, body)
        try:
            bound = self._bound_before(exchange.route, body) or self._read(exchange.route, body)
        except ServingError as exc:
            exchange.fail(exc)
        else:
            self._submit(exchange, bound)
        return None

    async def _answer_large(self, exchange: Exchange, head: Head, body: bytes) -> None:
        assert exchange.route.spec is not None
        try:
            content = await self._off_loop.run(inflated, head, body)
            try:
                handle = self._models.acquire(exchange.route.spec)
            except ServingError:
                await self._off_loop.read(check_body, content)
                raise
            with handle:
                servable = handle.servable
                read = await self._off_loop.read(read_predict, content, servable.signatures, servable.double_signatures)
                bound = self._bound(exchange.route, servable, read)
                self._submit(exchange, bound, is_large=True)
        except ServingError as exc:
            exchange.fail(exc)

    def _bound_before(self, route: Route, content: bytes) -> _Bound | None:
        """
        What the last request to this path was bound to, with the values of this one, if they are plain rows.

        Requests to one path mostly differ in their values alone, and are bound to the same until something changes.
        """
        if route.rows_call is None or route.rows_call[0] != self._models.changes:
            return None
        call = route.rows_call[1]()
        if call is None or (rows := read_plain_rows(content)) is None:
            return None
        return call, [rows], True

    def _read(self, route: Route, content: bytes) -> _Bound:
        assert route.spec is not None
        try:
            servable = self._models.find(route.spec)
        except ServingError:
            check_body(content)
            raise
        return self._bound(route, servable, read_predict(content, servable.signatures, servable.double_signatures))

    def _bound(self, route: Route, servable: Servable, read: PredictBody) -> _Bound:
        name, inputs, by_rows = read
        signature = servable.signatures[name]
        self._data_plane.check_predict_method(signature)
        call, arrays = self._data_plane.bind(servable, signature, inputs, (), self._timeout_seconds)
        if by_rows and name == DEFAULT_SIGNATURE and servable.limits is None and call.dtypes == [np.float32]:
            route.rows_call = self._models.changes, weakref.ref(call)
        return call, arrays, by_rows

    def _submit(self, exchange: Exchange, bound: _Bound, is_large: bool = False) -> None:
        call, arrays, by_rows = bound

        def done(result: Result) -> None:
            write = partial(_written, call, by_rows, result)
            if is_large or _takes_long(result):
                self._off_loop.run(write).add_done_callback(lambda written: exchange.end(written.result))
            else:
                exchange.end(write)

        self._data_plane.submit(call, arrays, done, timeout_seconds=self._timeout_seconds)


def _takes_long(result: Result) -> bool:
    return not isinstance(result, Exception) and sum(array.nbytes for array in result) > MAX_INLINE_WRITE_BYTES


def _written(call: Call, by_rows: bool, result: Result) -> Response:
    if isinstance(result, Exception):
        raise result
    version = call.servable.version
    if not by_rows:
        return inference_response("outputs", write_columns(dict(zip(call.outputs, result, strict=True))), version)
    rows = write_few_rows(result[0]) if len(result) == 1 else None
    return inference_response("predictions", rows or write_rows(dict(zip(call.outputs, result, strict=True))), version)
