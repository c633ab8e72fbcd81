"""
Starts and stops the server.

``with Server(settings) as server:`` returns once every configured model answers and both ports are open; leaving the
block lets the requests in flight end. The server runs in a thread of its own, with its own event loop.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Sequence
from functools import partial
from types import TracebackType
from typing import Any

import numpy as np
from grpc import aio

from serving.access import Access, read_access, read_grpc_credentials, read_tls_context
from serving.grpc.api import OPTIONS, Lasting, add_services
from serving.inference.data_plane import DataPlane
from serving.ports import address_of, bind_port, listen_grpc, port_in_use
from serving.protocol.errors import HotswapError, ServingError
from serving.repository.model_config import ModelEntry
from serving.rest.api import RestApi
from serving.rest.http_server import HttpLimits, HttpServer
from serving.settings import ServerSettings
from serving.startup import StartupError, configured_models, read_config, read_file

log = logging.getLogger(__name__)

_SIGNAL_SECONDS = 1.0


class Server:
    """One model server in this process."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self._thread = threading.Thread(target=self._run, name="model-server")
        self._started = threading.Event()
        self._stopped = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._stop_requested = False
        self._error: BaseException | None = None
        self._data_plane: DataPlane | None = None
        self._grpc_port: int | None = None
        self._lasting: Sequence[Lasting] = ()
        self._rest_port: int | None = None
        self._rest_socket: socket.socket | None = None

    @property
    def data_plane(self) -> DataPlane:
        """Everything below the protocols."""
        assert self._data_plane is not None
        return self._data_plane

    @property
    def grpc_port(self) -> int:
        """The port that gRPC listens on."""
        assert self._grpc_port is not None
        return self._grpc_port

    @property
    def rest_port(self) -> int:
        """The port that REST listens on."""
        assert self._rest_port is not None
        return self._rest_port

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """
        Start, and return when the ports are open.

        Raises:
            StartupError: It cannot start (with TensorFlow Serving's message), or `request_stop` came first.
        """
        self._reserve_ports()
        self._thread.start()
        self._started.wait()
        if self._error is not None:
            self._thread.join()
            if isinstance(self._error, HotswapError):
                raise self._error
            raise StartupError(f"INTERNAL: {self._error}") from self._error

    def request_stop(self) -> None:
        """Begin to stop; safe from any thread and from a signal handler, also before the server has started."""
        self._stop_requested = True
        if self._loop is not None and self._stop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop.set)

    def wait(self) -> None:
        """Return when the server has stopped; a signal handler may run meanwhile."""
        # A signal that came to another thread, as after a SIGSTOP, is handled when this one wakes up.
        while not self._stopped.wait(_SIGNAL_SECONDS):
            pass
        self._thread.join()

    def stop(self) -> None:
        """Let the requests in flight end, then free everything."""
        self.request_stop()
        self.wait()

    def _reserve_ports(self) -> None:
        settings = self.settings
        if settings.grpc_port:
            bind_port(settings.host, settings.grpc_port, "--port").close()
        if settings.rest_port is not None:
            self._rest_socket = bind_port(settings.host, settings.rest_port, "--rest_api_port")

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=_new_event_loop) as runner:
                runner.run(self._main())
        except BaseException as exc:
            self._error = exc
            if not isinstance(exc, HotswapError):
                log.exception("server failed")
        finally:
            if self._rest_socket is not None:
                self._rest_socket.close()
            self._started.set()
            self._stopped.set()

    async def _main(self) -> None:
        np.seterr(over="ignore")  # a number too large for float32 is infinite, here and in every request's task
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        if self._stop_requested:
            self._stop.set()
        entries, has_config = configured_models(self.settings)
        self._data_plane = self._create_data_plane()
        try:
            await self._load_models(entries, has_config)
            await self._serve()
        finally:
            await self._close_data_plane()

    def _create_data_plane(self) -> DataPlane:
        try:
            return DataPlane(self.settings)
        except OSError as exc:
            raise StartupError(f"NOT_FOUND: {exc.filename}; {exc.strerror}") from exc
        except ServingError as exc:
            raise StartupError(f"{exc.code.name}: {exc}") from exc

    async def _load_models(self, entries: Sequence[ModelEntry], has_config: bool) -> None:
        """Wait until every configured model is available, or the server is to stop."""
        assert self._stop is not None
        try:
            loading = asyncio.ensure_future(self.data_plane.models.start(entries, has_config))
            stopping = asyncio.ensure_future(self._stop.wait())
            await asyncio.wait([loading, stopping], return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if not loading.done():
                loading.cancel()
                await asyncio.wait([loading])
                raise StartupError("CANCELLED: stopped before every model was available")
            loading.result()
        except ServingError as exc:
            raise StartupError(f"{exc.code.name}: {exc}") from exc

    async def _serve(self) -> None:
        assert self._stop is not None
        grpc_server = await self._open_grpc()
        rest_server = await self._open_rest()
        log.info("serving grpc_port=%s rest_port=%s", self._grpc_port, self._rest_port)
        config_poll = asyncio.create_task(self._poll_config())
        self._started.set()
        await self._stop.wait()
        log.info("draining")
        self.data_plane.draining = True
        config_poll.cancel()
        for service in self._lasting:
            await service.end()
        closing = []
        if rest_server is not None:
            closing.append(rest_server.close(self.settings.drain_seconds))
        if grpc_server is not None:
            closing.append(grpc_server.stop(self.settings.drain_seconds))
        await asyncio.gather(*closing)

    async def _open_grpc(self) -> Any:
        settings = self.settings
        if settings.grpc_port is None and not settings.grpc_socket_path:
            return None
        credentials = read_file(read_grpc_credentials, settings.ssl_config_file)
        access = self._read_access()
        if settings.native_grpc and credentials is None and not settings.grpc_socket_path:
            server = await self._open_native_grpc(access)
            if server is not None:
                return server
        server = aio.server(options=OPTIONS)
        await self._start_grpc(server, credentials, access)
        return server

    async def _open_native_grpc(self, access: Access) -> Any:
        """A server on pygrpc-native, an extra whose private parts may change; None where it does not start."""
        server = None
        try:
            from serving.grpc.quick_grpc import QuickServer

            server = QuickServer(OPTIONS)
            await self._start_grpc(server, None, access)
        except Exception as exc:
            if not (isinstance(exc, ModuleNotFoundError) and exc.name == "pygrpc_native"):
                log.warning(
                    "gRPC is served by grpcio, as pygrpc-native does not start: %s: %s", type(exc).__name__, exc
                )
            if server is not None:
                await server.abandon()
            return None
        return server

    async def _start_grpc(self, server: Any, credentials: Any, access: Access) -> None:
        settings = self.settings
        self._lasting = await add_services(server, self.data_plane, access)
        port = None
        if settings.grpc_port is not None:
            port = listen_grpc(server, address_of(settings.host, settings.grpc_port), credentials)
        if settings.grpc_socket_path:
            listen_grpc(server, f"unix:{settings.grpc_socket_path}", credentials)
        await server.start()
        self._grpc_port = port

    async def _open_rest(self) -> HttpServer | None:
        if self._rest_socket is None:
            return None
        settings = self.settings
        limits = HttpLimits(
            body_bytes=settings.rest_max_body_bytes,
            buffered_bytes=settings.rest_max_buffered_bytes,
            head_bytes=settings.rest_max_head_bytes,
            connections=settings.rest_max_connections,
            idle_seconds=settings.rest_idle_seconds,
            receive_seconds=settings.rest_receive_seconds,
        )
        certificate = settings.rest_ssl_certificate_file
        tls = read_file(partial(read_tls_context, key_file=settings.rest_ssl_key_file), certificate)
        server = HttpServer(RestApi(self.data_plane, self._read_access()).handle, limits)
        self._rest_port = self._rest_socket.getsockname()[1]
        try:
            await server.start(self._rest_socket, tls)
        except OSError as exc:
            raise port_in_use(self._rest_port, "--rest_api_port") from exc
        return server

    def _read_access(self) -> Access:
        try:
            return read_access(self.settings.token_file, self.settings.admin_token_file)
        except OSError as exc:
            raise StartupError(f"NOT_FOUND: {exc.filename}; {exc.strerror}") from exc
        except ServingError as exc:
            raise StartupError(f"{exc.code.name}: {exc}") from exc

    async def _poll_config(self) -> None:
        """Apply the config file again and again; a file with an error is logged and changes nothing."""
        seconds = self.settings.model_config_file_poll_wait_seconds
        path = self.settings.model_config_file
        while seconds > 0 and path is not None:
            await asyncio.sleep(seconds)
            try:
                await self.data_plane.models.adopt(read_file(read_config, path))
            except (ServingError, StartupError) as exc:
                log.warning("config file not applied path=%s: %s", path, exc)

    async def _close_data_plane(self) -> None:
        try:
            await asyncio.wait_for(self.data_plane.close(), self.settings.drain_seconds)
        except TimeoutError:
            log.warning("some requests had not ended after %g seconds", self.settings.drain_seconds)


def _new_event_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:  # uvloop does not exist for every platform
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
