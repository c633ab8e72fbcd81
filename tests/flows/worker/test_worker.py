"""The worker of `hotswap up`: commands and scheduled runs, each in a new process that has everything imported."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.orchestration.prefect_server import TemporaryPrefect
from flows.settings import Settings
from tests.conftest import at_home
from tests.processes import hotswap, without_settings

pytestmark = [pytest.mark.xdist_group("worker"), pytest.mark.slow]

EPOCHS = ("--epochs", "25")


def until(holds: Callable[[], Any]) -> Any:
    """What it returns, once that is true."""
    deadline = time.monotonic() + 60
    while not (found := holds()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


@dataclass
class Warm:
    """A home with a Prefect server and a worker; no model server runs."""

    directory: Path
    environment: dict[str, str]
    process: subprocess.Popen[bytes]

    @property
    def log(self) -> str:
        return (self.directory / "worker.log").read_text()

    def hotswap(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return hotswap({**self.environment, **environment}, *arguments, directory=self.directory)

    @contextmanager
    def prefect(self) -> Iterator[SyncPrefectClient]:
        settings = {PREFECT_API_URL: self.environment["PREFECT_API_URL"]}
        with temporary_settings(settings), get_client(sync_client=True) as client:
            yield client

    def run_of(self, outcome: dict[str, Any]) -> FlowRun:
        """The flow run that made an outcome, once it has ended."""

        def found() -> FlowRun | None:
            with self.prefect() as client:
                runs = client.read_flow_runs()
            return next((run for run in runs if run.state is not None and run.state.is_final()), None)

        run = until(found)
        assert isinstance(run, FlowRun)
        return run


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory, furnish: Callable[[Path], None]) -> Iterator[Warm]:
    directory = tmp_path_factory.mktemp("worker")
    home = directory / ".hotswap"
    furnish(home)
    paths = {"HOTSWAP_HOME": str(home), "HOTSWAP_MODELS_REPO": str(directory / "models_repo")}
    ports = {"HOTSWAP_REST_PORT": "1", "HOTSWAP_GRPC_PORT": "2", "HOTSWAP_PREFECT_PORT": "3"}
    with at_home(home):
        server = TemporaryPrefect(Settings(home=home))
        server.wait()
    environment = without_settings() | paths | ports | {"PREFECT_API_URL": server.api_url}
    with (directory / "worker.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.worker"],
            env={**environment, "PYTHONPATH": str(Path.cwd())},
            cwd=directory,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    found = Warm(directory, environment, process)
    until(lambda: "the worker serves" in found.log)
    yield found
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    server.stop()


def test_a_training_of_the_command_line_is_a_run_of_the_deployment(warm: Warm) -> None:
    """It prints what it would print by itself, and Prefect has it as a run of `train`, with its parameters."""
    done = warm.hotswap("train", "iris", "--json", *EPOCHS)
    assert done.returncode in (0, 3), done.stderr + warm.log
    outcome = json.loads(done.stdout)
    assert outcome["model"] == "iris"
    assert "done here" not in done.stderr
    assert "data loaded recipe=iris train=120 test=30" in done.stderr
    with warm.prefect() as client:
        deployment = client.read_deployment_by_name("train-and-promote/train")
        (run,) = [each for each in client.read_flow_runs() if each.deployment_id == deployment.id]
    assert run.parameters["recipe"] == "iris"
    assert run.parameters["epochs"] == 25
    assert run.state is not None
    assert run.state.is_completed()
