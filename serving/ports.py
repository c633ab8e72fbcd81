"""Reserves the ports of a server and listens on them."""

from __future__ import annotations

import errno
import socket
from typing import Any

from serving.startup import PortInUse, StartupError


def bind_port(host: str, port: int, flag: str) -> socket.socket:
    """A socket bound to the port, not listening yet: connections are refused until the models are available."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as exc:
        bound.close()
        if exc.errno == errno.EADDRINUSE:
            raise port_in_use(port, flag) from exc
        raise StartupError(
            f"Cannot listen on {address_of(host, port)}: {exc.strerror}; change --host or {flag}."
        ) from exc
    return bound


def port_in_use(port: int, flag: str) -> PortInUse:
    """The error for a port that is taken; `flag` chooses another one."""
    return PortInUse(f"Port {port} is in use; stop the process that listens on it or choose another with {flag}.")


def address_of(host: str, port: int) -> str:
    """Host and port as gRPC writes them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def listen_grpc(server: Any, address: str, credentials: Any) -> int:
    """Make a gRPC server listen, and return its port."""
    try:
        port = (
            server.add_insecure_port(address) if credentials is None else server.add_secure_port(address, credentials)
        )
    except RuntimeError:
        port = 0
    if port:
        return int(port)
    if address.startswith("unix:"):
        raise StartupError(f"Cannot listen on {address}: choose another --grpc_socket_path.")
    if credentials is not None:
        raise StartupError(
            f"gRPC cannot listen on {address}: the port is taken, or the key in --ssl_config_file does not match the "
            "certificate."
        )
    raise port_in_use(int(address.rpartition(":")[2]), "--port")
