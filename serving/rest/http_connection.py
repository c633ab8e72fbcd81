"""
Speaks HTTP/1.1 on one connection.

httptools parses what arrives; the requests of a connection are answered one after the other, in their order. What a
client may send, and how long it may take, is bounded by the server's `HttpLimits`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

import httptools

from serving.rest.http_messages import Head, Response, error_page, status_of_unreadable

if TYPE_CHECKING:
    from serving.rest.http_server import HttpServer

log = logging.getLogger(__name__)

_LINGER_SECONDS = 5.0
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_METHODS_WITH_BODY = {b"POST", b"PUT", b"PATCH"}
_NO_HEAD = Head("", b"", [])


class HttpConnection(asyncio.Protocol):
    """One client's connection."""

    transport: asyncio.Transport

    def __init__(self, server: HttpServer) -> None:
        self.since = server.now
        """when the client last did what it had to"""
        self._server = server
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[tuple[Head, bytes] | Response] = deque()
        self._task: asyncio.Task[None] | None = None
        self._head, self._body_bytes = _NO_HEAD, 0
        """of the request that is being answered"""
        self._is_busy = False
        self._is_advancing = False
        self._read_closed = False
        self._write_closed = False
        self._has_heard_all = False
        self._is_receiving = False
        self._is_in_head = False
        self._is_write_paused = False
        self._unsent_bytes = 0
        self._received_bytes = 0
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._body_parts: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._server.connections.add(self)
        if len(self._server.connections) > self._server.limits.connections:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE)

    def connection_lost(self, exc: Exception | None) -> None:
        self._read_closed = True
        self._server.connections.discard(self)
        self._forget_body()
        self._forget_waiting()

    def data_received(self, data: bytes) -> None:
        if self._read_closed:
            return
        if self._is_in_head:
            self._received_bytes += len(data)
        else:
            self.since = self._server.now
        try:
            self._parse(data)
        except httptools.HttpParserError:
            self._refuse(status_of_unreadable(data))
        if self._is_in_head and self._received_bytes > self._server.limits.head_bytes:
            self._refuse_head()

    def eof_received(self) -> bool:
        """Keep a connection that the client has closed on its side until the client has all its answers."""
        self._read_closed = self._has_heard_all = True
        return self._is_busy or bool(self._waiting)

    def pause_writing(self) -> None:
        self._is_write_paused = True

    def resume_writing(self) -> None:
        self._is_write_paused = False
        self._next()

    def on_message_begin(self) -> None:
        if self._read_closed:
            return
        self._is_receiving = self._is_in_head = True
        self._received_bytes = 0
        self._target = b""
        self._headers = []

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_in_head:  # else it is a trailer
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self._read_closed or self._parser.should_upgrade():
            return
        self._is_in_head = False
        self._received_bytes = 0
        limits = self._server.limits
        body_bytes = header_bytes = 0
        expected = None
        for name, value in self._headers:
            header_bytes += len(name) + len(value)
            if name == b"content-length":
                body_bytes = int(value)
            elif name == b"expect":
                expected = value.lower()
        if len(self._target) > limits.head_bytes or header_bytes > limits.head_bytes:
            self._refuse_head()
        elif body_bytes > limits.body_bytes:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        elif expected is not None and self._has_body():
            if expected == b"100-continue":
                self.transport.write(_CONTINUE)
            else:
                self._refuse(HTTPStatus.EXPECTATION_FAILED)

    def on_body(self, body: bytes) -> None:
        if self._read_closed:
            return
        server, size = self._server, len(body)
        self._body_parts.append(body)
        self._received_bytes += size
        server.buffered_bytes += size
        if self._received_bytes > server.limits.body_bytes:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        elif server.buffered_bytes > server.limits.buffered_bytes:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE)

    def on_message_complete(self) -> None:
        if self._read_closed or self._parser.should_upgrade():
            return
        body = self._body_parts[0] if len(self._body_parts) == 1 else b"".join(self._body_parts)
        self._body_parts = []
        self._is_receiving = False
        parser = self._parser
        method, is_old = parser.get_method().decode(), parser.get_http_version() == "1.0"
        encoding = next((value for name, value in self._headers if name == b"content-encoding"), b"")
        head = Head(method, self._target, self._headers, parser.should_keep_alive(), is_old, encoding)
        self._take(head, body)

    def _take(self, head: Head, body: bytes) -> None:
        """Answer a request now, or after those before it."""
        if self._is_busy or self._is_write_paused:
            self._waiting.append((head, body))
            self.transport.pause_reading()
            return
        self._head, self._body_bytes, self._is_busy = head, len(body), True
        try:
            answering = self._server.handle(head, body, self._respond)
        except Exception:
            self._fail()
            return
        if answering is not None:
            self._task = self._server.loop.create_task(self._run(answering))

    def close_if_late(self) -> None:
        """Close where the client has left the server waiting for too long."""
        limits, waited = self._server.limits, self._server.now - self.since
        if unsent := self.transport.get_write_buffer_size():
            if unsent != self._unsent_bytes:
                self._unsent_bytes, self.since = unsent, self._server.now
            elif waited > limits.receive_seconds:
                self.transport.abort()
        elif self._is_busy:
            return
        elif self._read_closed:
            if waited > _LINGER_SECONDS:
                self.transport.abort()
        elif self._is_receiving:
            if waited > limits.receive_seconds:
                self._refuse(HTTPStatus.REQUEST_TIMEOUT)
        elif waited > limits.idle_seconds:
            self.transport.close()

    def close_if_quiet(self, seconds: float) -> None:
        """Close where nothing is being received or answered."""
        is_at_work = self._is_busy or self._is_receiving or bool(self._waiting)
        if not is_at_work and self._server.now - self.since >= seconds:
            self.transport.close()

    def _parse(self, data: bytes) -> None:
        """Read on; a request that asks for another protocol is read again without that wish, as it is not granted."""
        while data and not self._read_closed:
            try:
                self._parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as exc:
                if self._parser.get_method() == b"CONNECT":
                    self._refuse(HTTPStatus.NOT_IMPLEMENTED)
                    return
                data = self._head_without_upgrade() + data[exc.args[0] :]

    def _has_body(self) -> bool:
        """Has it a body that waits for an expectation to be met? In HTTP/1.0 there are none."""
        headers, parser = dict(self._headers), self._parser
        announced = b"transfer-encoding" in headers or headers.get(b"content-length", b"0").strip(b"0")
        return bool(announced) and parser.get_method() in _METHODS_WITH_BODY and parser.get_http_version() != "1.0"

    def _head_without_upgrade(self) -> bytes:
        parser = self._parser
        head = b"%b %b HTTP/%b\r\n" % (parser.get_method(), self._target, parser.get_http_version().encode())
        lines = [b"%b: %b\r\n" % header for header in self._headers if header[0] != b"upgrade"]
        return head + b"".join(lines) + b"\r\n"

    async def _run(self, answering: Coroutine[Any, Any, None]) -> None:
        try:
            await answering
        except Exception:
            self._fail()

    def _fail(self) -> None:
        log.exception("request failed method=%s target=%r", self._head.method, self._head.target)
        self._respond(error_page(HTTPStatus.INTERNAL_SERVER_ERROR))

    def _respond(self, response: Response) -> None:
        server, head = self._server, self._head
        self._is_busy = False
        self.since = server.now
        server.buffered_bytes -= self._body_bytes
        if not self._write_closed and not self.transport.is_closing():
            is_last = response.closes or ((server.draining or self._read_closed) and not self._waiting)
            keep_alive = head.keep_alive and not is_last
            self.transport.write(response.to_bytes(head, server.date, keep_alive))
            if not keep_alive:
                self._end()
        if self._waiting:
            self._next()

    def _next(self) -> None:
        """Go on with what waits; a request that is answered at once comes back here, and leaves it to the loop."""
        if self._is_advancing:
            return
        self._is_advancing = True
        while self._waiting and not self._is_busy and not self._is_write_paused:
            following = self._waiting.popleft()
            if isinstance(following, Response):
                self._head, self._body_bytes = _NO_HEAD, 0
                self._respond(following)
            else:
                self._take(*following)
        self._is_advancing = False
        if not self._waiting and not self.transport.is_closing():
            self.transport.resume_reading()

    def _refuse_head(self) -> None:
        is_target = len(self._target) > self._server.limits.head_bytes
        self._refuse(HTTPStatus.REQUEST_URI_TOO_LONG if is_target else HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def _refuse(self, status: HTTPStatus) -> None:
        """After the answers to what came before, send an error page; what follows on the connection is thrown away."""
        if self._read_closed:
            return
        self._read_closed = True
        self._is_receiving = self._is_in_head = False
        self._forget_body()
        self._waiting.append(error_page(status))
        self._next()

    def _forget_body(self) -> None:
        self._server.buffered_bytes -= sum(map(len, self._body_parts))
        self._body_parts = []

    def _forget_waiting(self) -> None:
        self._server.buffered_bytes -= sum(len(each[1]) for each in self._waiting if not isinstance(each, Response))
        self._waiting.clear()

    def _end(self) -> None:
        """Say and hear nothing more."""
        self._read_closed = self._write_closed = True
        self._forget_waiting()
        if self._has_heard_all or not self.transport.can_write_eof():
            self.transport.close()
        else:
            # Closing at once would make the kernel take back the answer, as there may be more to read.
            self.transport.write_eof()
            self.transport.resume_reading()
