"""
Accepts the connections of one listening socket and bounds what its clients may ask.

Between the parser and the handler there is nothing: an ASGI layer would cost more than a small model does.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from dataclasses import dataclass
from email.utils import formatdate

from serving.rest.http_connection import HttpConnection
from serving.rest.http_messages import Handler

_BACKLOG = 2048
_QUIET_SECONDS = 0.25
_SWEEP_SECONDS = 1.0
_DRAIN_STEP_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What one client may ask of the server; see the settings of the same names."""

    body_bytes: int
    buffered_bytes: int
    head_bytes: int
    connections: int
    idle_seconds: float
    receive_seconds: float


class HttpServer:
    """Every connection of one listening socket."""

    def __init__(self, handle: Handler, limits: HttpLimits) -> None:
        self.handle = handle
        self.limits = limits
        self.connections: set[HttpConnection] = set()
        self.draining = False
        self.buffered_bytes = 0
        self.loop = asyncio.get_running_loop()
        self._listening: asyncio.Server | None = None
        self._sweep()

    async def start(self, bound: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Accept connections."""
        self._listening = await self.loop.create_server(
            lambda: HttpConnection(self), sock=bound, ssl=tls, backlog=_BACKLOG
        )

    async def close(self, seconds: float) -> None:
        """
        Accept no more connections, and end each as soon as it is quiet.

        A connection is quiet when every request on it is answered and nothing has arrived for a moment: what a client
        had sent before it could know is answered. After `seconds` the rest is cut off.
        """
        self.draining = True
        if self._listening is not None:
            await asyncio.sleep(0)  # takes the connections that wait to be accepted
            self._listening.close()
        self.now = self.loop.time()
        deadline = self.now + seconds
        for connection in self.connections:
            connection.since = self.now
        while self.connections and self.now < deadline:
            await asyncio.sleep(_DRAIN_STEP_SECONDS)
            self.now = self.loop.time()
            for connection in list(self.connections):
                connection.close_if_quiet(_QUIET_SECONDS)
        for connection in list(self.connections):
            connection.transport.abort()
        self._timer.cancel()

    def _sweep(self) -> None:
        """Once a second: what time it is, and who has taken too long."""
        self.now = self.loop.time()
        self.date = formatdate(usegmt=True).encode()
        for connection in list(self.connections):
            connection.close_if_late()
        self._timer = self.loop.call_later(_SWEEP_SECONDS, self._sweep)
