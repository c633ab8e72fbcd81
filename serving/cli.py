"""
``python -m serving``: runs one server in this process, as ``tensorflow_model_server`` does.

A bad value of a flag ends the program with exit code 255.
"""

from __future__ import annotations

import gc
import importlib.metadata
import json
import logging
import os
import resource
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from serving.flags import UsageError, parse_flags, settings_of, usage
from serving.repository.files import write_atomically
from serving.runtime.native_logs import without_start_up_notes
from serving.settings import ServerSettings

EXIT_USAGE = 255
EXIT_NOT_STARTED = 255
EXIT_PORT_IN_USE = 1

# By default the millions of lists in a large request would be looked at again and again while they are made.
_GARBAGE_THRESHOLDS = (50_000, 20, 100)
# By default a thread that loads a version lets the one that answers requests wait for 5 ms, again and again.
_SWITCH_SECONDS = 1e-4
_NO_GRPC = (
    "Failed to start server. Error: INVALID_ARGUMENT: "
    "At least one of server_options.grpc_port or server_options.grpc_socket_path must be set."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; the exit code."""
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s", force=True
    )
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        values = parse_flags(arguments)
        if values.get("version"):
            print(f"TensorFlow ModelServer: {importlib.metadata.version('hotswap')} (hotswap)")
            print(f"TensorFlow Library: {importlib.metadata.version('tensorflow')}")
            return 0
        settings = settings_of(values)
    except UsageError as exc:
        print(exc, file=sys.stderr)
        print(usage(), file=sys.stderr)
        return EXIT_USAGE
    if settings.grpc_port is None and not settings.grpc_socket_path:
        print(_NO_GRPC, file=sys.stderr)
        return EXIT_NOT_STARTED
    return serve(settings, ports_file=values.get("ports_file") or None)


def serve(settings: ServerSettings, ports_file: str | None = None) -> int:
    """Run one server in this process, which does nothing else, until a signal stops it; the exit code."""
    _allow_many_files()
    from serving.runtime import tensorflow_import

    tensorflow_import.set_environment()
    with without_start_up_notes():
        tensorflow_import.prepare()
    from serving.server import Server
    from serving.startup import PortInUse, StartupError

    server = Server(settings)
    signalled = False

    def stop(number: int, frame: object) -> None:
        nonlocal signalled
        signalled = True
        server.request_stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    try:
        server.start()
        if ports_file:
            _write_ports(ports_file, settings, server)
    except PortInUse as exc:
        print(exc, file=sys.stderr)
        return EXIT_PORT_IN_USE
    except StartupError as exc:
        if signalled:
            return 0
        print(f"Failed to start server. Error: {exc}", file=sys.stderr)
        return EXIT_NOT_STARTED
    gc.collect()
    gc.freeze()  # what is loaded now stays; later collections need not look at it
    gc.set_threshold(*_GARBAGE_THRESHOLDS)
    sys.setswitchinterval(_SWITCH_SECONDS)
    server.wait()
    return 0


def _allow_many_files() -> None:
    """Open as many connections as the system lets this user."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # a system may name a limit that it does not grant
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _write_ports(target: str, settings: ServerSettings, server: Any) -> None:
    from serving.startup import StartupError

    grpc_port = server.grpc_port if settings.grpc_port is not None else None
    rest_port = server.rest_port if settings.rest_port is not None else None
    ports = {
        "grpc_port": grpc_port,
        "grpc": f"{settings.host}:{grpc_port}" if grpc_port else f"unix:{settings.grpc_socket_path}",
        "rest_port": rest_port,
        "rest": rest_port
        and f"{'https' if settings.rest_ssl_certificate_file else 'http'}://{settings.host}:{rest_port}",
        "pid": os.getpid(),
    }
    if target == "-":
        print(json.dumps(ports), flush=True)
        return
    try:
        write_atomically(Path(target), json.dumps(ports))
    except OSError as exc:
        server.stop()
        reason = os.strerror(exc.errno or 0)
        raise StartupError(f"INVALID_ARGUMENT: --ports_file={target} cannot be written ({reason})") from exc
