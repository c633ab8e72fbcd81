"""Receivers of notifications on this machine: an HTTP server that takes JSON, and a mail server."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_string, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

Sink = TypeVar("Sink", bound=socketserver.BaseServer)


class HttpSink(ThreadingHTTPServer):
    """Keeps the JSON of every POST."""

    def __init__(self, port: int = 0) -> None:
        self.received: list[dict[str, Any]] = []
        super().__init__(("127.0.0.1", port), _JsonHandler)

    @property
    def address(self) -> str:
        """As Apprise writes it."""
        return f"json://127.0.0.1:{self.server_port}/in-box"


class _JsonHandler(BaseHTTPRequestHandler):
    server: HttpSink

    def do_POST(self) -> None:
        self.server.received.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


class MailSink(socketserver.ThreadingTCPServer):
    """Speaks as much SMTP as a client needs to send a mail, and keeps each."""

    allow_reuse_address = True

    def __init__(self) -> None:
        self.received: list[Any] = []
        super().__init__(("127.0.0.1", 0), _MailHandler)

    @property
    def address(self) -> str:
        port = self.server_address[1]
        return f"mailto://127.0.0.1:{port}?mode=insecure&from=hotswap@example.org&to=ops@example.org"


class _MailHandler(socketserver.StreamRequestHandler):
    server: MailSink

    def handle(self) -> None:
        self._say("220 sink")
        while line := self.rfile.readline().decode().strip().upper():
            if line == "DATA":
                self._say("354 go on")
                self.server.received.append(message_from_string(self._content(), policy=policy.default))
            self._say("221 bye" if line == "QUIT" else "250 ok")
            if line == "QUIT":
                return

    def _content(self) -> str:
        lines = iter(self.rfile.readline, b".\r\n")
        return b"".join(lines).decode()

    def _say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())


@contextmanager
def listening(sink: Sink) -> Iterator[Sink]:
    """Let a sink answer during the block."""
    thread = threading.Thread(target=sink.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield sink
    finally:
        sink.shutdown()
        thread.join()
        sink.server_close()
