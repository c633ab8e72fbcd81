"""
Answers gRPC calls without a task of their own, on pygrpc-native.

pygrpc-native's asyncio server makes a task and a context for every call, which costs about as much as a small model.
Here a method may have a quick handler, which is given the bytes of a request and ends the call when it can.
`QuickServer` overrides the private `_on_events` for it. A test fails if pygrpc-native takes it away.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import Any

import grpc
from grpc import aio
from pygrpc_native import EVENT_CALL
from pygrpc_native.aio import Server

log = logging.getLogger(__name__)

_QUIET_SECONDS = 0.25
_LINGER_SECONDS = 5.0
_DRAIN_STEP_SECONDS = 0.005
_MAX_PARENT_BYTES = 80
"""of the directory in which a socket gets its own: its path has to stay below 104 bytes"""

Trailer = tuple[tuple[str, str], ...]


class QuickCall:
    """One call of a quick handler; it is ended once, by `succeed` or by `fail`."""

    __slots__ = ("_call_id", "_server")

    def __init__(self, server: QuickServer, call_id: int) -> None:
        self._server = server
        self._call_id = call_id

    def succeed(self, response: bytes, trailer: Trailer) -> None:
        self._server.open_quick_calls.discard(self._call_id)
        self._server.front.respond(self._call_id, response, trailing_metadata=trailer)

    def fail(self, code: grpc.StatusCode, message: str, trailer: Trailer) -> None:
        self._server.open_quick_calls.discard(self._call_id)
        self._server.front.fail(self._call_id, code.value[0], message, trailing_metadata=trailer)


QuickHandler = Callable[[bytes, QuickCall], None]
"""Given a request, ends the call in this turn of the event loop or later."""


class QuickServer(Server):  # type: ignore[misc]  # the stubs of its base are not there
    """
    A server whose methods may have quick handlers.

    Args:
        options: Those of grpcio.
        abstract_sockets: Whether the system has Unix sockets without a file.
    """

    def __init__(self, options: Sequence[tuple[str, Any]], abstract_sockets: bool = sys.platform == "linux") -> None:
        super().__init__(options=options)
        self._abstract_sockets = abstract_sockets
        self._front_args["metrics"] = True
        self._is_refusing = False
        self._last_call = -inf
        self.open_quick_calls: set[int] = set()
        self._handlers: dict[str, QuickHandler] = {}
        self._quick: dict[int, QuickHandler] = {}

    @property
    def front(self) -> Any:
        """The part of pygrpc-native that is written in Rust."""
        return self._front

    def add_quick_handler(self, path: str, handler: QuickHandler) -> None:
        """Let this handler answer a method, which has been added with a usual one; `path` is ``/service/method``."""
        self._handlers[path] = handler

    async def start(self) -> None:
        """Serve."""
        await super().start()
        paths = [path for path, _ in self._table]
        self._quick = {paths.index(path): handler for path, handler in self._handlers.items()}

    async def _start_fallback(self, streamed: Any, generic: Any) -> None:
        """
        Methods whose requests are streams go to a server at a Unix socket.

        Whoever is on this machine can connect to an abstract one, so its methods have to ask for the token themselves.
        """
        try:
            address, path = self._fallback_socket()
            fallback = aio.server(options=self._options)
            fallback.add_generic_rpc_handlers(generic)
            for service, handlers in streamed.items():
                fallback.add_registered_method_handlers(service, handlers)
            fallback.add_insecure_port(address)
            await fallback.start()
            self._fallback = fallback
            self.front.set_fallback(path)
        except Exception as exc:  # nothing that is needed to serve
            log.warning("gRPC reflection is not offered: %s", exc)

    def _fallback_socket(self) -> tuple[str, str]:
        """Its address for grpcio and its path; a kill leaves nothing of an abstract one, `stop` removes the other."""
        if self._abstract_sockets:
            name = f"hotswap-{secrets.token_hex(16)}"
            return f"unix-abstract:{name}", f"\0{name}"
        parent = tempfile.gettempdir()
        if len(os.fsencode(parent)) > _MAX_PARENT_BYTES:
            parent = "/tmp"
        self._fallback_dir = tempfile.mkdtemp(prefix="hotswap-", dir=parent)
        path = str(Path(self._fallback_dir, "socket"))
        return f"unix:{path}", path

    async def abandon(self) -> None:
        """Free the port of a server that has not started."""
        with suppress(Exception):
            await asyncio.to_thread(self.front.close)
            if self._fallback_dir is not None:
                shutil.rmtree(self._fallback_dir)

    async def stop(self, grace: float | None) -> None:
        """
        Answer what clients have sent, take no more calls, and end once all answers are sent, or after `grace` seconds.

        Threads of the front send the answers, and it does not wait for them when it closes.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (grace or 0)
        await asyncio.sleep(min(self._last_call + _QUIET_SECONDS, deadline) - loop.time())
        self._is_refusing = True
        while (self.open_quick_calls or self._calls) and loop.time() < deadline:
            await asyncio.sleep(_DRAIN_STEP_SECONDS)
        come, _ = self._counts()  # also calls whose request never arrives as a whole
        last = min(loop.time() + _LINGER_SECONDS, deadline)
        while self._counts()[1] < come and loop.time() < last:
            await asyncio.sleep(_DRAIN_STEP_SECONDS)
        if come:  # the last bytes may still be on their way to the sockets
            await asyncio.sleep(min(_QUIET_SECONDS, deadline - loop.time()))
        await super().stop(max(0.0, deadline - loop.time()))

    def _counts(self) -> tuple[int, int]:
        """How many calls have come, and how many answers have been written."""
        methods = self.front.metrics()["methods"].values()
        sent = (status["count"] for method in methods for status in method["status"].values())
        return sum(method["started"] for method in methods), sum(sent)

    def _on_events(self, events: list[tuple[Any, ...]]) -> None:
        self._last_call = self._loop.time()
        usual = [event for event in events if not self._takes(event)]
        if usual:
            super()._on_events(usual)

    def _takes(self, event: tuple[Any, ...]) -> bool:
        kind, call_id, method_id, request, *_ = event
        if self._is_refusing and kind == EVENT_CALL:
            self.front.fail(call_id, grpc.StatusCode.UNAVAILABLE.value[0], "Server is shutting down")
            return True
        handler = self._quick.get(method_id) if kind == EVENT_CALL else None
        if handler is None:
            return False
        self.open_quick_calls.add(call_id)
        call = QuickCall(self, call_id)
        try:
            handler(request, call)
        except Exception as exc:
            log.exception("a quick handler failed")
            call.fail(grpc.StatusCode.UNKNOWN, f"{type(exc).__name__}: {exc}", ())
        return True
