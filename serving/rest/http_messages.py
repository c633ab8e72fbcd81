"""What HTTP carries: the head of a request, a response, and the error pages of the server itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

HTML, JSON, TEXT = b"text/html", b"application/json", b"text/plain"
METHODS = {b"GET", b"POST", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"PATCH"}

_METHOD = re.compile(rb"([A-Za-z]+) (?P<relative>[\w%.-]+(/[\w%.:/-]*)?(\?\S*)? HTTP/1\.)?")
_STATUS_LINES = {int(status): f"{status} {status.phrase}".encode() for status in HTTPStatus}
_STATUS_LINES[499] = b"499 Client Closed Request"


@dataclass(frozen=True, slots=True)
class Head:
    """
    What a request says before its body.

    `target` is as in the request line, header names are in lower case.
    """

    method: str
    target: bytes
    headers: list[tuple[bytes, bytes]]
    keep_alive: bool = True
    is_old: bool = False
    """HTTP/1.0"""
    encoding: bytes = b""
    """of the body, from the first such header"""


@dataclass(slots=True)
class Response:
    """One answer; content length, date and connection headers are added on the way out."""

    status: int
    body: bytes
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()
    closes: bool = False
    """whether the connection ends with it"""

    def to_bytes(self, head: Head, date: bytes, keep_alive: bool) -> bytes:
        """What is sent to the request with this head."""
        text = b"HTTP/1.1 %b\r\nContent-Type: %b\r\nDate: %b\r\nContent-Length: %d\r\n" % (
            _STATUS_LINES[self.status],
            self.content_type,
            date,
            len(self.body),
        )
        for name, value in self.headers:
            text += b"%b: %b\r\n" % (name, value)
        if not keep_alive:
            text += b"Connection: close\r\n"
        elif head.is_old:
            text += b"Connection: keep-alive\r\n"
        return text + b"\r\n" if head.method == "HEAD" else text + b"\r\n" + self.body


Respond = Callable[[Response], None]
Handler = Callable[[Head, bytes, Respond], Coroutine[Any, Any, None] | None]
"""Given head and body, answers by calling its last argument, at once or later; a coroutine it returns is run for it."""


def error_page(status: HTTPStatus) -> Response:
    """The answer to a request that does not reach the API; the connection ends with it."""
    text = (
        f"<HTML><HEAD>\n<TITLE>{status} {status.phrase}</TITLE>\n"
        f"</HEAD><BODY>\n<H1>{status.phrase}</H1>\n</BODY></HTML>\n"
    )
    return Response(status, text.encode(), HTML, closes=True)


def status_of_unreadable(data: bytes) -> HTTPStatus:
    """The status for what the parser refuses: no request, an unknown method, or a target that is under no root."""
    method = _METHOD.match(data)
    if method is not None and method[1] not in METHODS:
        return HTTPStatus.NOT_IMPLEMENTED
    return HTTPStatus.NOT_FOUND if method is not None and method["relative"] else HTTPStatus.BAD_REQUEST
