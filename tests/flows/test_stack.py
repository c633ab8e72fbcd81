"""``hotswap up``: everything together, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from flows.journal import Journal

PORTS = ("HOTSWAP_REST_PORT", "HOTSWAP_GRPC_PORT", "HOTSWAP_MLFLOW_PORT", "HOTSWAP_PREFECT_PORT")
COMMAND = [sys.executable, "-m", "flows.cli"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A home of the test's own, and ports that were free a moment ago."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in PORTS]
        ports = {name: str(each.getsockname()[1]) for name, each in zip(PORTS, sockets, strict=True)}
    paths = {"HOTSWAP_HOME": str(tmp_path / "home"), "HOTSWAP_MODELS_REPO": str(tmp_path / "models")}
    return {**os.environ, **paths, **ports, "PYTHONPATH": str(Path.cwd())}


@pytest.fixture
def started(environment: dict[str, str], tmp_path: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that are killed with all their children when the test fails before it has stopped them."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
        process.communicate()


def start_up(environment: dict[str, str], directory: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, "up", "--json"],
        env=environment,
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_up_starts_everything_and_sigterm_stops_it(
    environment: dict[str, str], started: list[subprocess.Popen[str]], tmp_path: Path
) -> None:
    """Every address answers once the JSON line is there; after SIGTERM no process is left and the exit code is 0."""
    process = start_up(environment, tmp_path)
    started.append(process)
    assert process.stdout is not None
    addresses = json.loads(process.stdout.readline())
    for address in (
        f"{addresses['rest']}/readyz",
        f"{addresses['mlflow']}/health",
        f"{addresses['prefect']}/api/health",
    ):
        with urllib.request.urlopen(address, timeout=10) as answer:
            assert answer.status == 200
    with urllib.request.urlopen(f"{addresses['rest']}/hotswap/models", timeout=10) as answer:
        assert json.load(answer)["default_version_label"] == "stable"
    assert addresses["ports"] == {name: int(environment[name]) for name in PORTS}
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 3
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert psutil.wait_procs(children, timeout=20)[1] == []
    assert {path.name for path in Path(addresses["logs"]).iterdir()} >= {
        "model-server.log",
        "mlflow.log",
        "prefect.log",
    }


@pytest.fixture
def model_server_alone(
    environment: dict[str, str], started: list[subprocess.Popen[str]], tmp_path: Path
) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    """``hotswap up`` where MLflow and Prefect are elsewhere, once it is ready, and its processes."""
    elsewhere = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:1", "PREFECT_API_URL": "http://127.0.0.1:1/api"}
    process = start_up({**environment, **elsewhere}, tmp_path)
    started.append(process)
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["mlflow"] == "http://127.0.0.1:1"
    return process, psutil.Process(process.pid).children(recursive=True)


def test_when_one_process_ends_the_others_are_stopped(
    model_server_alone: tuple[subprocess.Popen[str], list[psutil.Process]],
) -> None:
    """The message names the process and its log, and the exit code is 1."""
    process, children = model_server_alone
    children[0].kill()
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert "The model server ended" in errors
    assert "model-server.log" in errors
    assert psutil.wait_procs(children, timeout=20)[1] == []


def test_the_processes_end_even_when_up_is_killed(
    model_server_alone: tuple[subprocess.Popen[str], list[psutil.Process]],
) -> None:
    """SIGKILL gives it no time to stop anything, and still nothing is left behind."""
    process, children = model_server_alone
    process.kill()
    assert psutil.wait_procs(children, timeout=20)[1] == []


def test_a_directory_put_there_by_hand_is_served_and_journaled(
    environment: dict[str, str], started: list[subprocess.Popen[str]], tmp_path: Path, tiny_model: Any
) -> None:
    """While everything is up a reconcile turn makes the model known to the server, without any command."""
    elsewhere = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:1", "PREFECT_API_URL": "http://127.0.0.1:1/api"}
    process = start_up({**environment, **elsewhere, "HOTSWAP_RECONCILE_SECONDS": "0.2"}, tmp_path)
    started.append(process)
    assert process.stdout is not None
    rest = json.loads(process.stdout.readline())["rest"]
    tiny_model(tmp_path / "models" / "tiny", 3)
    deadline = time.monotonic() + 30
    with requests.Session() as session:
        while not session.get(f"{rest}/v1/models/tiny", timeout=10).ok:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    journal = Journal(tmp_path / "models", "tiny")
    while not journal.read():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert journal.read()[0].facts["added"] == [3]


@pytest.mark.parametrize("setting", PORTS)
def test_a_port_in_use_names_the_setting(setting: str, environment: dict[str, str], tmp_path: Path) -> None:
    """Nothing is started when a port is taken; the message says which setting changes it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        occupied = {**environment, setting: str(taken.getsockname()[1])}
        done = subprocess.run(
            [*COMMAND, "up"], env=occupied, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 1
    assert done.stdout == ""
    assert f"set {setting} to another port" in done.stderr


def test_two_settings_with_one_port_are_told(environment: dict[str, str], tmp_path: Path) -> None:
    """A port given twice is found before anything is started."""
    twice = {**environment, "HOTSWAP_GRPC_PORT": environment["HOTSWAP_REST_PORT"]}
    done = subprocess.run(
        [*COMMAND, "up"], env=twice, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "set HOTSWAP_GRPC_PORT to another port" in done.stderr
