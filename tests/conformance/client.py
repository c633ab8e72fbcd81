"""How is a recorded request put to a server?"""

from __future__ import annotations

import http.client
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import grpc

from tests.conformance.cases import content

_CHUNK_BYTES = 7
_CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
]


@dataclass(frozen=True, slots=True)
class RestAnswer:
    """Status, headers in lower case, and body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class GrpcAnswer:
    """The name of the code, its message, and the response where the code is OK."""

    code: str
    message: str
    response: bytes


def ask_rest(port: int, request: Mapping[str, Any], timeout_seconds: float) -> RestAnswer:
    """Send a request byte for byte on a connection of its own."""
    with socket.create_connection(("127.0.0.1", port), timeout_seconds) as connection:
        connection.sendall(_request_bytes(request))
        with http.client.HTTPResponse(connection, method=request["method"]) as response:
            response.begin()
            headers = {name.lower(): value for name, value in response.getheaders()}
            return RestAnswer(response.status, headers, response.read())


def open_channel(port: int) -> grpc.Channel:
    """A channel to a server of ours."""
    return grpc.insecure_channel(f"127.0.0.1:{port}", _CHANNEL_OPTIONS)


def ask_grpc(channel: grpc.Channel, method: str, message: bytes, timeout_seconds: float) -> GrpcAnswer:
    """Call a method with the bytes of a message."""
    call: Any = channel.unary_unary(f"/{method}")
    try:
        return GrpcAnswer("OK", "", call(message, timeout=timeout_seconds))
    except grpc.RpcError as exc:
        return GrpcAnswer(exc.code().name, exc.details() or "", b"")


def _request_bytes(request: Mapping[str, Any]) -> bytes:
    method, body = request["method"], content(request)
    headers = {"Host": "localhost", **request.get("headers", {})}
    if headers.get("Transfer-Encoding") == "chunked":
        chunks = [body[start : start + _CHUNK_BYTES] for start in range(0, len(body), _CHUNK_BYTES)]
        body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in [*chunks, b""])
    elif not request.get("no_length") and (body or method not in ("GET", "HEAD")):
        headers["Content-Length"] = str(len(body))
    lines = [f"{method} {request['path']} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body
