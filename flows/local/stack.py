"""
Runs model server, MLflow page and Prefect server on one machine.

`up` starts them, waits until each answers, and keeps each of them running until SIGINT or SIGTERM. Only a model server
that cannot start at all ends it; a page that cannot is shown as not ready, and tried again. Services that the user runs
elsewhere (``MLFLOW_TRACKING_URI`` or ``PREFECT_API_URL`` with an address) are only shown.
"""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flows.console import progress
from flows.endpoints.model_entries import servable_entries
from flows.events import Event, Kind, tell
from flows.local import webhooks
from flows.local.announcement import STOP_HERE, announce, document
from flows.local.delegation import socket_path
from flows.local.exposure import check_pages, check_server
from flows.local.interrupts import stop_on_signals
from flows.local.page_logins import mlflow_arguments, mlflow_environment, prefect_environment
from flows.local.ports import check_ports
from flows.local.supervision import Ended, Service, Supervisor
from flows.machine.instance import keep_services, only_instance
from flows.machine.processes import STOP_SECONDS
from flows.orchestration.prefect_server import REASONS
from flows.promotion.labels import STABLE
from flows.settings import Settings, apply_environment, prepare_home
from serving.protocol.errors import HotswapError
from serving.repository.files import write_atomically
from serving.repository.model_config import render
from serving.repository.store import Repository

STABLE_BY_DEFAULT = f"--default_version_label={STABLE}"
"""No client gets an unverified version without asking for it."""
_WHATEVER_LOADS = "--require_all_models=false"
"""A model that cannot be loaded does not keep the others from being served."""
_MODEL_SERVER = "model server"
_POLL_SECONDS = 0.1
_STANDARD_ERROR = 2
_MODEL_SERVER_READY_SECONDS = 600.0  # large models take long to load


class StackFailed(HotswapError):
    """The model server ended, or never became ready."""


def up(settings: Settings, as_json: bool = False, on_ready: Callable[[], None] = lambda: None) -> None:
    """
    Run everything until SIGINT or SIGTERM.

    Args:
        settings: Where everything is and listens.
        as_json: Whether the addresses are printed as JSON.
        on_ready: Called before they are printed.

    Raises:
        AlreadyUp: It runs here already; nothing has been changed.
        PortTaken: A port is in use; nothing has been started.
        StackFailed: The model server cannot start; the others have been stopped.
    """
    check_server(settings, settings.host, settings.token_file is not None)
    check_pages(settings)
    apply_environment(settings)
    home = prepare_home(settings)
    services, followers = _services(settings), _followers(settings)
    every = [*services, *followers]
    addresses, ports = _addresses(settings, every), _ports(every)
    with only_instance(home, {"addresses": addresses, "ports": ports}) as was_killed:
        check_ports(settings, {each.name: each.ports for each in every}, STOP_SECONDS if was_killed else 0)
        stop_requested = threading.Event()
        stop_on_signals(stop_requested)
        with _running(settings, services, home / "logs") as supervisors:
            _wait_until_settled(supervisors, stop_requested)
            if not stop_requested.is_set():
                on_ready()
                late = [each.service.name for each in supervisors if not each.is_ready]
                told = document(addresses, str(home / "logs"), ports, late)
                announce(told, as_json, STOP_HERE)
                with _running(settings, followers, home / "logs") as following:
                    _keep_running(home, [*supervisors, *following], stop_requested)


@contextmanager
def _running(settings: Settings, services: Sequence[Service], logs: Path) -> Iterator[list[Supervisor]]:
    """Run these services during the block; those that follow others end before them, who are told how it went."""
    stop_requested = threading.Event()

    def ports_are_free(service: Service) -> None:
        check_ports(settings, {service.name: service.ports})

    def tell_down(name: str, how: str) -> None:
        tell(settings, Event(Kind.DOWN, name, why=f"{name} {how}"))

    progress.note(f"starting {', '.join(service.name for service in services)}")

    supervisors = [Supervisor(service, logs, ports_are_free, stop_requested, tell_down) for service in services]
    try:
        for supervisor in supervisors:
            supervisor.start()
        yield supervisors
    finally:
        stop_requested.set()
        for supervisor in supervisors:
            supervisor.join()


def _keep_running(home: Path, supervisors: Sequence[Supervisor], stop_requested: threading.Event) -> None:
    """Tell the state of each service whenever it changes, until a stop is requested."""
    told: list[dict[str, Any]] = []
    # A signal that came to another thread, as after a SIGSTOP, is handled when this one wakes up.
    while not stop_requested.wait(_POLL_SECONDS):
        if (states := [each.state for each in supervisors]) != told:
            keep_services(home, states)
            told = states


def _wait_until_settled(supervisors: Sequence[Supervisor], stop_requested: threading.Event) -> None:
    """
    Return when each is ready or has failed for the first time.

    Raises:
        StackFailed: The model server has failed.
    """
    started, waiting = time.monotonic(), list(supervisors)
    while waiting and not stop_requested.is_set():
        for supervisor in [each for each in waiting if each.settled.is_set()]:
            waiting.remove(supervisor)
            if supervisor.failure is not None:
                raise _failed(supervisor, supervisor.failure)
            if supervisor.is_ready:
                progress.note(f"{supervisor.service.name} is ready after {time.monotonic() - started:.1f} s")
        if waiting:
            progress.step(f"waiting for {' and '.join(each.service.name for each in waiting)}")
            waiting[0].settled.wait(_POLL_SECONDS)


def _failed(supervisor: Supervisor, failure: HotswapError) -> HotswapError:
    if not isinstance(failure, Ended) or supervisor.process is None:
        return failure
    return StackFailed(supervisor.process.failure_message(str(failure)))


def server_flags(settings: Settings) -> list[str]:
    """
    The flags that serve the models repository; writes ``models.config``, unless an agent does.

    A model without a published version is left out, as a server would wait for it before it opens its ports.
    """
    repository = Repository(settings.models_repo.absolute())
    if not repository.is_replica:  # its agent writes there, and nobody else
        repository.check_writable()
        with repository.lock_config():
            repository.write_config(render(servable_entries(repository)))
    monitoring = prepare_home(settings) / "monitoring.config"
    write_atomically(monitoring, "prometheus_config { enable: true }\n")
    files = {name: getattr(settings, name) for name in ("token_file", "admin_token_file", "trusted_keys_file")}
    return [
        *(f"--{name}={path.absolute()}" for name, path in files.items() if path is not None),
        *_request_log_flags(settings),
        f"--host={settings.host}",
        f"--port={settings.grpc_port}",
        f"--rest_api_port={settings.rest_port}",
        f"--model_config_file={repository.config_path}",
        f"--monitoring_config_file={monitoring}",
        "--allow_version_labels_for_unavailable_models",
        "--max_num_load_retries=1",
        "--load_retry_interval_micros=300000",
    ]


def _request_log_flags(settings: Settings) -> list[str]:
    if not settings.request_log:
        return []
    key_file = settings.request_log_key_file
    return [
        f"--request_log_directory={settings.request_log_directory}",
        f"--request_log_sampling_rate={settings.request_log}",
        f"--request_log_leave_out={settings.request_log_leave_out}",
        f"--request_log_hash={settings.request_log_hash}",
        f"--request_log_key_file={'' if key_file is None else key_file.absolute()}",
    ]


def _services(settings: Settings) -> list[Service]:
    return [_model_server(settings), *_mlflow(settings), *_prefect(settings)]


def _model_server(settings: Settings) -> Service:
    return Service(
        _MODEL_SERVER,
        lambda: [sys.executable, "-m", "serving", *server_flags(settings), STABLE_BY_DEFAULT, _WHATEVER_LOADS],
        settings.rest_url,
        f"{settings.rest_url}/healthz",
        {"HOTSWAP_REST_PORT": settings.rest_port, "HOTSWAP_GRPC_PORT": settings.grpc_port},
        ready_seconds=_MODEL_SERVER_READY_SECONDS,
        must_start=True,
        redact_log=False,
    )


def _mlflow(settings: Settings) -> Iterator[Service]:
    tracking_uri = os.environ["MLFLOW_TRACKING_URI"]
    if tracking_uri.startswith("http"):
        return
    url = f"http://{settings.url_host}:{settings.mlflow_port}"
    command = [sys.executable, "-m", "flows.registry.mlflow_page", "--workers", "1"]
    command += ["--default-artifact-root", str(settings.home.absolute() / "artifacts")]
    command += ["--host", settings.host, "--port", str(settings.mlflow_port)]
    ports = {"HOTSWAP_MLFLOW_PORT": settings.mlflow_port}
    # It may carry a password, which the list of processes would show.
    backend = {
        "MLFLOW_BACKEND_STORE_URI": tracking_uri,
        **mlflow_environment(settings),
        **webhooks.mlflow_environment(settings),
    }
    yield Service("mlflow", lambda: [*command, *mlflow_arguments(settings)], url, f"{url}/health", ports, backend)


def _prefect(settings: Settings) -> Iterator[Service]:
    if "PREFECT_API_URL" in os.environ:
        return
    url = f"http://{settings.url_host}:{settings.prefect_port}"
    command = [sys.executable, "-m", "flows.orchestration.prefect_page"]
    command += ["--host", settings.host, "--port", str(settings.prefect_port)]
    ports = {"HOTSWAP_PREFECT_PORT": settings.prefect_port}
    variables = {**_prefect_page(), **prefect_environment(settings, url)}
    yield Service("prefect", lambda: command, url, f"{url}/api/health", ports, variables, reasons=REASONS)


def _prefect_page() -> dict[str, str]:
    """Let its page ask the server that it came from, by whatever port and address that was reached."""
    names = ("PREFECT_UI_API_URL", "PREFECT_SERVER_UI_API_URL")
    return {} if any(name in os.environ for name in names) else {names[0]: "/api"}


def _followers(settings: Settings) -> list[Service]:
    """The services that start once the others are ready."""
    url = f"http://{settings.url_host}:{settings.operator_port}"
    return [
        Service(
            "operator",
            lambda: [sys.executable, "-m", "flows.local.operator"],
            url,
            f"{url}/healthz",
            {"HOTSWAP_OPERATOR_PORT": settings.operator_port},
            output=_STANDARD_ERROR,
        ),
        *_worker(settings),
    ]


def _worker(settings: Settings) -> Iterator[Service]:
    """For our own Prefect alone: the deployments of another one belong to more than this home."""
    if settings.worker and "PREFECT_API_URL" not in os.environ:
        yield Service(
            "worker",
            lambda: [sys.executable, "-m", "flows.worker"],
            ready_file=socket_path(settings.home),
            ready_seconds=math.inf,  # it waits for Prefect
            ends_its_own=True,  # its runs are cancelled
        )


def _addresses(settings: Settings, services: Sequence[Service]) -> dict[str, str]:
    urls = {service.name: service.url for service in services if service.url and service.name != _MODEL_SERVER}
    urls.setdefault("mlflow", os.environ["MLFLOW_TRACKING_URI"])
    urls.setdefault("prefect", os.environ.get("PREFECT_API_URL", ""))
    return {"rest": settings.rest_url, "grpc": settings.grpc_target, **urls}


def _ports(services: Sequence[Service]) -> dict[str, int]:
    return {setting: port for service in services for setting, port in service.ports.items()}
