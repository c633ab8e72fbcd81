"""What the clients make of servers that are away, slow, late or something else."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import numpy as np
import pytest

from clients import retries
from clients.client import PredictClient
from clients.grpc_client import GrpcClient
from clients.rest_client import RestClient
from serving.protocol.errors import (
    DeadlineExceeded,
    Exhausted,
    InvalidRequest,
    ServableNotFound,
    ServerUnavailable,
    ServingError,
    Unsupported,
)
from tests.clients.conftest import Served

ROWS = np.zeros((1, 4), np.float32)


@pytest.fixture
def port() -> Iterator[socket.socket]:
    """A port that is taken but refuses connections until somebody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound


@pytest.fixture(params=["REST", "gRPC"])
def protocol(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def connect(protocol: str, port: socket.socket, timeout_seconds: float = 10.0) -> PredictClient:
    address = f"127.0.0.1:{port.getsockname()[1]}"
    if protocol == "REST":
        return RestClient(f"http://{address}", timeout_seconds)
    return GrpcClient(address, timeout_seconds)


def test_nobody_listens(protocol: str, port: socket.socket) -> None:
    """A refused connection is reported in one sentence with the address and the next step."""
    with connect(protocol, port) as client, pytest.raises(ServerUnavailable) as caught:
        client.status("tiny")
    assert f"127.0.0.1:{port.getsockname()[1]} cannot be reached" in caught.value.message
    assert "`hotswap serve`" in caught.value.message
    assert "\n" not in caught.value.message


def test_nobody_answers(protocol: str, port: socket.socket) -> None:
    """A server that accepts and stays silent costs no more than the timeout."""
    port.listen()
    started = time.monotonic()
    with connect(protocol, port, timeout_seconds=0.3) as client, pytest.raises(DeadlineExceeded, match=r"0\.3 s"):
        client.predict("tiny", {"input": ROWS})
    assert time.monotonic() - started < 5


def test_a_server_that_comes_late(protocol: str, port: socket.socket, served: Served) -> None:
    """A server that begins to listen after the first attempt still answers the call."""
    target = served.rest_port if protocol == "REST" else served.grpc_port
    with forwarding_when_retried(port, target), connect(protocol, port) as client:
        assert client.predict("tiny", {"input": ROWS}, version=1).outputs["output"].tolist() == [[1, 1, 1]]


def test_attempts_end(protocol: str, port: socket.socket, caplog: pytest.LogCaptureFixture) -> None:
    """There are at most three attempts, and none once the timeout would pass."""
    caplog.set_level(logging.INFO, retries.log.name)
    with connect(protocol, port) as client, pytest.raises(ServerUnavailable):
        client.status("tiny")
    assert len(caplog.messages) == retries.MAX_ATTEMPTS - 1
    caplog.clear()
    with connect(protocol, port, timeout_seconds=0.1) as client, pytest.raises((ServerUnavailable, DeadlineExceeded)):
        client.status("tiny")
    assert caplog.messages == []


def test_a_reload_is_not_repeated(port: socket.socket, caplog: pytest.LogCaptureFixture) -> None:
    """A reload that may have arrived is not sent again."""
    caplog.set_level(logging.INFO, retries.log.name)
    with GrpcClient(f"127.0.0.1:{port.getsockname()[1]}") as client, pytest.raises(ServerUnavailable):
        client.reload([])
    assert caplog.messages == []


def test_a_reload_that_is_refused(served: Served) -> None:
    """A label cannot be moved to a version that is not there, and stays where it was."""
    tiny, *others = served.entries
    wrong = replace(tiny, labels={"stable": 9})
    with GrpcClient(f"127.0.0.1:{served.grpc_port}") as client:
        with pytest.raises(ServingError) as caught:
            client.reload([wrong, *others])
        assert caught.value.code is grpc.StatusCode.FAILED_PRECONDITION
        assert client.predict("tiny", ROWS, label="stable").version == 1


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, InvalidRequest),
        (404, ServableNotFound),
        (429, Exhausted),
        (500, ServingError),
        (501, Unsupported),
        (503, ServerUnavailable),
        (504, DeadlineExceeded),
    ],
)
def test_http_statuses(status: int, error: type[ServingError]) -> None:
    """Each HTTP status is one error, in the server's words."""
    with answering(status, b'{"error": "why not"}') as url, RestClient(url, timeout_seconds=0.5) as client:
        with pytest.raises(ServingError, match=r"^why not$") as caught:
            client.status("tiny")
        assert type(caught.value) is error


@pytest.mark.parametrize(("status", "code"), [(401, "UNAUTHENTICATED"), (403, "PERMISSION_DENIED")])
def test_http_statuses_without_a_class(status: int, code: str) -> None:
    """A status that has no class of its own keeps its code."""
    with answering(status, b'{"error": "who are you"}') as url, RestClient(url) as client:
        with pytest.raises(ServingError, match="who are you") as caught:
            client.status("tiny")
        assert caught.value.code.name == code


@pytest.mark.parametrize(("status", "body"), [(404, b"<html>"), (200, b"<html>"), (200, b"[]"), (502, b"")])
def test_something_else_listens(status: int, body: bytes) -> None:
    """An answer that no model server gives is reported with its address."""
    with answering(status, body) as url, RestClient(url) as client:
        with pytest.raises(ServingError, match=url) as caught:
            client.status("tiny")
        assert type(caught.value) is ServingError


def test_an_address_that_is_none() -> None:
    """An address without a scheme is refused with the address."""
    with RestClient("127.0.0.1:8501") as client, pytest.raises(InvalidRequest, match=r"127\.0\.0\.1:8501"):
        client.status("tiny")


@contextmanager
def forwarding_when_retried(port: socket.socket, target: int) -> Iterator[None]:
    """Listen on `port` once a client pauses before another attempt, and pass everything on to the port `target`."""
    threads: list[threading.Thread] = []
    sockets = [port]

    def forward() -> None:
        with suppress(OSError):
            while True:
                near, _ = port.accept()
                far = socket.create_connection(("127.0.0.1", target))
                sockets.extend((near, far))
                threads.extend(start(pump, *pair) for pair in ((near, far), (far, near)))

    class Listen(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            port.listen()
            threads.append(start(forward))
            retries.log.removeHandler(self)

    handler = Listen(logging.INFO)
    level = retries.log.level
    retries.log.setLevel(logging.INFO)
    retries.log.addHandler(handler)
    try:
        yield
    finally:
        retries.log.removeHandler(handler)
        retries.log.setLevel(level)
        for each in sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()


def pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError), source:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def start(function: Any, *arguments: Any) -> threading.Thread:
    thread = threading.Thread(target=function, args=arguments, daemon=True)
    thread.start()
    return thread


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """A web server that gives one answer to everything; its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            """Stay quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = start(server.serve_forever)
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
