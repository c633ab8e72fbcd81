"""
What runs on one machine, and is it up?

`up` starts the model server, the MLflow page and the Prefect server, waits until each answers, and stops them all when
it is told to or when one of them ends. Services that the user has elsewhere (``MLFLOW_TRACKING_URI`` or
``PREFECT_API_URL`` with an address) are left alone and only shown.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from flows.labelling import STABLE
from flows.live_server import servable_entries
from flows.settings import Settings, apply_environment, prepare_home
from serving.errors import HotswapError
from serving.model_config import render
from serving.repository import Repository, write_atomically

STABLE_BY_DEFAULT = f"--default_version_label={STABLE}"
"""Nobody gets a version that is not verified without asking for it."""
_MODEL_SERVER = "model server"
_READY_SECONDS = 120.0
_STOP_SECONDS = 35.0  # the model server lets requests in flight end, for at most 30 s
_POLL_SECONDS = 0.1
_LAST_LINES = 15

# Ends the whole group when standard input closes, which it does even when the process that started this is killed.
_TETHERED = 'exec 3<&0; (read _ <&3; kill -TERM 0) & exec "$@" </dev/null 3<&-'


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
        StackFailed: A process ended or was not ready in time; the others have been stopped.
    """
    apply_environment(settings)
    logs = prepare_home(settings) / "logs"
    services = _services(settings)
    _check_ports(settings.host, services)
    told_to_stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: told_to_stop.set())
    processes: list[Process] = []
    try:
        for service in services:
            processes.append(Process(service.name, service.command, logs))
        _wait_until_ready(services, processes, told_to_stop)
        if not told_to_stop.is_set():
            if settings.reconcile_seconds:
                processes.append(Process("reconciler", [sys.executable, "-m", "flows.reconciler"], logs))
            _announce(settings, services, logs, as_json)
        while not told_to_stop.wait(_POLL_SECONDS):
            _check_running(processes)
    finally:
        stop(processes)


def server_flags(settings: Settings) -> list[str]:
    """
    The flags that serve the models repository; makes ``models.config`` where there is none yet.

    A model without a published version is left out, as a server would wait for it before it opens its ports.
    """
    repository = Repository(settings.models_repo.absolute())
    repository.check_writable()
    with repository.lock_config():
        repository.write_config(render(servable_entries(repository)))
    monitoring = prepare_home(settings) / "monitoring.config"
    write_atomically(monitoring, "prometheus_config { enable: true }\n")
    token = [] if settings.token_file is None else [f"--token_file={settings.token_file.absolute()}"]
    return [
        *token,
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
            _MODEL_SERVER,
            [sys.executable, "-m", "serving", *server_flags(settings), STABLE_BY_DEFAULT],
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


def _check_ports(host: str, services: Sequence[Service]) -> None:
    """Open every port at once, so that two settings with the same one are found too."""
    with ExitStack() as probes:
        for service in services:
            for setting, port in service.ports.items():
                try:
                    probes.enter_context(socket.create_server((host, port)))
                except OSError as exc:
                    raise PortTaken(
                        f"Port {port} of the {service.name} cannot be used: {exc.strerror}; "
                        f"stop the process that listens there, or set {setting} to another port"
                    ) from exc


def _announce(settings: Settings, services: Sequence[Service], logs: Path, as_json: bool) -> None:
    urls = {service.name: service.url for service in services if service.name != _MODEL_SERVER}
    ports = {setting: port for service in services for setting, port in service.ports.items()}
    urls.setdefault("mlflow", os.environ["MLFLOW_TRACKING_URI"])
    urls.setdefault("prefect", os.environ.get("PREFECT_API_URL", ""))
    if as_json:
        told = {"rest": settings.rest_url, "grpc": settings.grpc_target, **urls, "logs": str(logs), "ports": ports}
        print(json.dumps(told), flush=True)
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


class Process:
    """A command that runs, in a session of its own, with all that it starts; it ends when this process does."""

    def __init__(self, name: str, command: Sequence[str], logs: Path) -> None:
        self.name = name
        self.log_path = logs / f"{name.replace(' ', '-')}.log"
        with self.log_path.open("wb") as log:
            self._leader = subprocess.Popen(
                ["/bin/sh", "-c", _TETHERED, "sh", *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def ended(self) -> bool:
        return self._leader.poll() is not None

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def end(self, deadline: float) -> None:
        """Wait until `deadline` of the monotonic clock, then kill what is left of the session."""
        with suppress(subprocess.TimeoutExpired):
            self._leader.wait(max(0.0, deadline - time.monotonic()))
        self.kill()
        self._leader.communicate()

    @property
    def pid(self) -> int:
        return self._leader.pid

    @property
    def last_lines(self) -> str:
        """The end of its log."""
        with self.log_path.open(encoding="utf-8", errors="replace") as log:
            return "".join(deque(log, maxlen=_LAST_LINES)).rstrip()

    def kill(self) -> None:
        """End the whole session at once."""
        self._signal(signal.SIGKILL)

    def told(self, what: str) -> str:
        """A sentence about it, and the last lines of its log."""
        return f"The {self.name} {what}, so everything was stopped; its log is {self.log_path}:\n{self.last_lines}"

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):  # nobody is left
            os.killpg(self._leader.pid, number)


def _wait_until_ready(services: Sequence[Service], processes: Sequence[Process], told_to_stop: threading.Event) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    for service, process in zip(services, processes, strict=True):
        while not _answers(service.ready_url):
            _check_running(processes)
            if time.monotonic() > deadline:
                raise StackFailed(process.told(f"was not ready after {_READY_SECONDS:g} s"))
            if told_to_stop.wait(_POLL_SECONDS):
                return


def _check_running(processes: Sequence[Process]) -> None:
    for process in processes:
        if process.ended:
            raise StackFailed(process.told("ended"))


def stop(processes: Sequence[Process]) -> None:
    """Tell all of them to end, and kill what has not ended in time."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + _STOP_SECONDS
    for process in processes:
        process.end(deadline)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, ValueError):
        return False
