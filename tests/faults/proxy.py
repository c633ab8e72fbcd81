"""A way to a server that can be cut, held up and mended at any time, while the server itself runs on."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Proxy:
    """Passes on what comes to `port` to another port, and back."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._flows = threading.Event()
        self._connections: list[socket.socket] = []
        self._reserved = _bound(0)  # nobody else gets the port while it is cut
        self.port: int = self._reserved.getsockname()[1]
        self.mend()

    def cut(self) -> None:
        """Whoever is connected is cut off, and new connections are refused."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listening.close()
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._connections.clear()

    def pause(self) -> None:
        """Connections are taken, and nothing is passed on."""
        self._flows.clear()

    def go_on(self) -> None:
        self._flows.set()

    def mend(self) -> None:
        """It works again after `cut`."""
        self._flows.set()
        self._listening = _bound(self.port)
        self._listening.listen()
        self._accepting = threading.Thread(target=self._accept, args=[self._listening])
        self._accepting.start()

    def close(self) -> None:
        self._flows.set()
        with suppress(OSError):
            self.cut()
        self._reserved.close()

    def _accept(self, listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listening.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                self._connections += [client, server]
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=[source, sink], daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError), sink:
            while data := source.recv(65536):
                self._flows.wait()
                sink.sendall(data)


@contextmanager
def proxied(target: int) -> Iterator[Proxy]:
    """A proxy to this port, until the block ends."""
    proxy = Proxy(target)
    try:
        yield proxy
    finally:
        proxy.close()


@contextmanager
def cut(proxy: Proxy) -> Iterator[None]:
    """The proxy is cut during the block."""
    proxy.cut()
    try:
        yield
    finally:
        proxy.mend()


def _bound(port: int) -> socket.socket:
    bound = socket.socket()
    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        bound.setsockopt(socket.SOL_SOCKET, option, 1)
    bound.bind(("127.0.0.1", port))
    return bound
