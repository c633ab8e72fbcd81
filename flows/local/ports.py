"""Checks that the ports are free, and names who listens where one is not."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress

import psutil

from clients.rest_client import RestClient
from flows.endpoints.connections import credentials
from flows.settings import Settings
from serving.protocol.errors import HotswapError

_ASK_SECONDS = 2.0
_POLL_SECONDS = 0.1
_MAX_COMMAND = 60


class PortTaken(HotswapError):
    """A port that one of the processes should listen on is in use."""


def check_ports(settings: Settings, ports: Mapping[str, Mapping[str, int]], patience_seconds: float = 0) -> None:
    """
    Open every port at once, so that two settings with the same one are found too.

    Args:
        settings: The address, and where a model server is asked for its repository.
        ports: By the name of each process, its ports by the setting that changes each.
        patience_seconds: How long to wait for a port to become free.

    Raises:
        PortTaken: One of them cannot be used; the message says who listens there.
    """
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            _open_all(settings, ports)
            return
        except PortTaken:
            if time.monotonic() > deadline:
                raise
            time.sleep(_POLL_SECONDS)


def _open_all(settings: Settings, ports: Mapping[str, Mapping[str, int]]) -> None:
    ours: set[int] = set()
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with ExitStack() as probes:
        for name, by_setting in ports.items():
            for setting, port in by_setting.items():
                try:
                    probes.enter_context(socket.create_server((settings.host, port), family=family))
                except OSError as exc:
                    who = "another of these settings has it" if port in ours else _listener(settings, port)
                    raise PortTaken(
                        f"Port {port} of the {name} cannot be used: {os.strerror(exc.errno or 0)}"
                        f"{f' ({who})' if who else ''}; set {setting} to another port, or free this one"
                    ) from exc
                ours.add(port)


def _listener(settings: Settings, port: int) -> str:
    """Whose server or which process listens on a port, as far as this user may know."""
    who = [each for each in (_repository(settings, port), _process(port)) if each]
    return ", ".join(who)


def _repository(settings: Settings, port: int) -> str:
    if port not in (settings.rest_port, settings.grpc_port):
        return ""
    with suppress(HotswapError), RestClient(settings.rest_url, _ASK_SECONDS, credentials(settings)) as client:
        served = client.served()
        if served is not None:
            return f"it is the hotswap server of {served.repository or 'an unknown repository'}"
    return ""


def _process(port: int) -> str:
    with suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            address = connection.laddr
            if connection.status == psutil.CONN_LISTEN and address and address.port == port and connection.pid:
                process = psutil.Process(connection.pid)
                command = " ".join(process.cmdline()) or process.name()
                return f"process {connection.pid}, {command[:_MAX_COMMAND]}"
    return ""
