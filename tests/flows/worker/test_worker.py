"""The worker of `hotswap up`: commands and scheduled runs, each in a new process that has everything imported."""

from __future__ import annotations

import json
import os
import re
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
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort
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

    def runs(self, deployment: str) -> list[FlowRun]:
        """The flow runs of a deployment, newest first."""
        with self.prefect() as client:
            wanted = client.read_deployment_by_name(deployment).id
            return [
                each for each in client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC) if each.deployment_id == wanted
            ]

    def lines(self, run: FlowRun) -> list[str]:
        """What Prefect has as the log of a flow run."""
        with self.prefect() as client:
            logs = client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id])), limit=200)
        return [each.message for each in logs if not each.name.startswith("prefect")]


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
    """It prints what it would print by itself, and Prefect has parameters and every line of it."""
    done = warm.hotswap("train", "iris", "--json", *EPOCHS)
    assert done.returncode in (0, 3), done.stderr + warm.log
    assert json.loads(done.stdout)["model"] == "iris"
    said = [line.partition(" ")[2].rstrip("…") for line in done.stderr.splitlines() if line[2:3] == ":"]
    assert {"loading TensorFlow", "data loaded recipe=iris train=120 test=30"} <= set(said)
    (run,) = warm.runs("train-and-promote/train")
    assert (run.parameters["recipe"], run.parameters["epochs"]) == ("iris", 25)
    assert run.state is not None
    assert run.state.is_completed()
    kept = warm.lines(run)
    assert [line for line in said if not any(_short(each).startswith(line) for each in kept)] == []


def _short(line: str) -> str:
    """A line as the command line shows it."""
    return re.sub(r"\b([0-9a-f]{8})[0-9a-f]{24}\b", r"\1", line)
