"""Ports for programs that have to be told one before they start."""

from __future__ import annotations

import random
import socket
from contextlib import suppress

import psutil

PORTS = tuple(f"HOTSWAP_{name}_PORT" for name in ("REST", "GRPC", "MLFLOW", "PREFECT", "OPERATOR"))
"""the settings of all ports of `hotswap up`"""
BELOW_THE_KERNELS_OWN = range(15_000, 32_000)
"""the kernel gives none of these to whoever asks for any, so nobody takes one between its choice and its use"""


def stack_ports() -> dict[str, str]:
    """The settings that give a `hotswap up` ports on which nobody listens."""
    return dict(zip(PORTS, map(str, free_ports(len(PORTS))), strict=True))


def free_ports(count: int) -> list[int]:
    """Ports on which nobody listens."""
    found: list[int] = []
    for port in random.SystemRandom().sample(BELOW_THE_KERNELS_OWN, 1_000):
        if len(found) == count:
            break
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            found.append(port)
    assert len(found) == count
    return found


def process_at(port: int) -> int:
    """The process that listens on a port."""
    listening = [each for each in psutil.net_connections("tcp") if each.status == psutil.CONN_LISTEN]
    (pid,) = {each.pid for each in listening if each.laddr[1:] == (port,)}
    assert pid is not None
    return pid
