"""
What runs on one machine, and is it up?

`up` starts the model server, the MLflow page and the Prefect server, waits until each answers, and stops them all when
it is told to or when one of them ends. Services that the user has elsewhere (``MLFLOW_TRACKING_URI`` or
``PREFECT_API_URL`` with an address) are left alone and only shown.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from honcho.manager import Manager
from rich.console import Console
from rich.table import Table

from flows.live_server import servable_entries
from flows.settings import Settings, apply_environment
from serving.errors import HotswapError
from serving.model_config import render
from serving.repository import Repository, write_atomically

_READY_SECONDS = 120.0
_POLL_SECONDS = 0.1
_LAST_LINES = 15
_STOPPED_BY_SIGNAL = (130, 143)  # what honcho's manager returns after SIGINT and SIGTERM


class PortTaken(HotswapError):
    """A port that one of the processes should listen on is in use."""


class StackFailed(HotswapError):
    """One of the processes ended, or never became ready."""


@dataclass(frozen=True, slots=True)
class Service:
    """One process: what it is called, how it is started, and how to know that it answers."""

    name: str
    command: Sequence[str]
    url: str
    ready_url: str
    ports: dict[str, int]
    """by the setting that changes it"""


def up(settings: Settings, as_json: bool = False) -> None:
    """
    Run everything until SIGINT or SIGTERM.

    Raises:
        PortTaken: A port is in use; nothing has been started.
        StackFailed: A process ended; the others have been stopped.
    """
    apply_environment(settings)
    services = _services(settings)
    for service in services:
        _check_ports(settings.host, service)
    logs = settings.home.absolute() / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    printer = _Logs(logs)
    manager = Manager(printer)
    for service in services:
        manager.add_process(service.name, shlex.join(service.command), env=dict(os.environ))
    watch = _Readiness(services, manager, lambda: _announce(settings, services, logs, as_json))
    watch.start()
    manager.loop()
    watch.stop()
    printer.close()
    if manager.returncode not in _STOPPED_BY_SIGNAL:
        raise StackFailed(printer.why(manager, watch.late))


def server_flags(settings: Settings) -> list[str]:
    """
    The flags that serve the models repository; makes ``models.config`` where there is none yet.

    A model without a published version is left out, as a server would wait for it before it opens its ports.
    """
    repository = Repository(settings.models_repo.absolute())
    repository.check_writable()
    with repository.lock_config():
        repository.write_config(render(servable_entries(repository)))
    monitoring = settings.home.absolute() / "monitoring.config"
    monitoring.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(monitoring, "prometheus_config { enable: true }\n")
    return [
        f"--host={settings.host}",
        f"--port={settings.grpc_port}",
        f"--rest_api_port={settings.rest_port}",
        f"--model_config_file={repository.config_path}",
        f"--monitoring_config_file={monitoring}",
        "--allow_version_labels_for_unavailable_models",
        "--max_num_load_retries=1",
        "--load_retry_interval_micros=300000",
    ]


def _services(settings: Settings) -> list[Service]:
    found = [
        Service(
            "model server",
            [sys.executable, "-m", "serving", *server_flags(settings)],
            settings.rest_url,
            f"{settings.rest_url}/readyz",
            {"HOTSWAP_REST_PORT": settings.rest_port, "HOTSWAP_GRPC_PORT": settings.grpc_port},
        )
    ]
    tracking_uri = os.environ["MLFLOW_TRACKING_URI"]
    if not tracking_uri.startswith("http"):
        url = f"http://{settings.host}:{settings.mlflow_port}"
        command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", tracking_uri]
        command += ["--default-artifact-root", str(settings.home.absolute() / "artifacts"), "--workers", "1"]
        command += ["--host", settings.host, "--port", str(settings.mlflow_port)]
        found.append(Service("mlflow", command, url, f"{url}/health", {"HOTSWAP_MLFLOW_PORT": settings.mlflow_port}))
    if "PREFECT_API_URL" not in os.environ:
        url = f"http://{settings.host}:{settings.prefect_port}"
        command = [sys.executable, "-m", "prefect", "server", "start"]
        command += ["--host", settings.host, "--port", str(settings.prefect_port)]
        ports = {"HOTSWAP_PREFECT_PORT": settings.prefect_port}
        found.append(Service("prefect", command, url, f"{url}/api/health", ports))
    return found


def _check_ports(host: str, service: Service) -> None:
    for setting, port in service.ports.items():
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as exc:
                raise PortTaken(
                    f"Port {port} of the {service.name} cannot be used ({exc.strerror}): stop the process that "
                    f"listens there, or set {setting} to another port"
                ) from exc


def _announce(settings: Settings, services: Sequence[Service], logs: Path, as_json: bool) -> None:
    urls = {service.name: service.url for service in services}
    urls.setdefault("mlflow", os.environ["MLFLOW_TRACKING_URI"])
    urls.setdefault("prefect", os.environ.get("PREFECT_API_URL", ""))
    if as_json:
        print(json.dumps({"rest": settings.rest_url, "grpc": settings.grpc_target, **urls, "logs": str(logs)}))
        sys.stdout.flush()
        return
    table = Table(box=None)
    table.add_column("up")
    table.add_column("address")
    table.add_row("model server, REST", settings.rest_url)
    table.add_row("model server, gRPC", settings.grpc_target)
    table.add_row("MLflow: runs and versions", urls["mlflow"])
    table.add_row("Prefect: flow runs and reports", urls["prefect"])
    table.add_row("logs", str(logs))
    console = Console(soft_wrap=True)
    console.print(table)
    console.print("Train with `hotswap train iris` in another terminal; stop everything with Ctrl-C.")


class _Logs:
    """Where the manager prints: one file per process, and its last lines kept at hand."""

    def __init__(self, directory: Path) -> None:
        self.width = 0
        self._directory = directory
        self._files: dict[str, TextIO] = {}
        self._last: dict[str, deque[str]] = {}

    def write(self, message: Any) -> None:
        line = message.data.decode("utf-8", "replace") if isinstance(message.data, bytes) else message.data
        if message.name not in self._files:
            self._files[message.name] = self.path(message.name).open("w", encoding="utf-8", buffering=1)
            self._last[message.name] = deque(maxlen=_LAST_LINES)
        self._files[message.name].write(line)
        self._last[message.name].append(line)

    def path(self, name: str) -> Path:
        return self._directory / f"{name.replace(' ', '-')}.log"

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def why(self, manager: Manager, late: str | None) -> str:
        """Which process failed, and its last words."""
        name = late or _first_stopped(self._last.get("system", ()))
        told = "was not ready in time" if late else "ended"
        lines = "".join(self._last.get(name, ())).rstrip()
        return f"The {name} {told}, so everything was stopped; its log is {self.path(name)}:\n{lines}"


def _first_stopped(lines: Sequence[str] | deque[str]) -> str:
    stopped = [line.partition(" stopped ")[0] for line in lines if " stopped (rc=" in line]
    return stopped[0] if stopped else "model server"


class _Readiness(threading.Thread):
    """Tells when every service answers, and ends the manager when one takes too long."""

    def __init__(self, services: Sequence[Service], manager: Manager, announce: Any) -> None:
        super().__init__(name="readiness", daemon=True)
        self.late: str | None = None
        self._services = services
        self._manager = manager
        self._announce = announce
        self._stopped = threading.Event()

    def run(self) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        for service in self._services:
            while not answers(service.ready_url):
                if self._stopped.wait(_POLL_SECONDS):
                    return
                if time.monotonic() > deadline:
                    self.late = service.name
                    self._manager.terminate()
                    return
        self._announce()

    def stop(self) -> None:
        self._stopped.set()


def answers(url: str) -> bool:
    """Whether there is a good answer at this address."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, ValueError):
        return False
