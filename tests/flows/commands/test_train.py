"""``hotswap train`` as a whole: what a person sees, what a program reads in a pipe, and where the files are."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pytest

from flows.settings import sqlite_address
from tests.faults.server_process import PROJECT
from tests.flows.console.terminals import hotswap_on_a_terminal, until_shown
from tests.ports import free_ports
from tests.processes import behind_a_dead_proxy, without_settings

ARGUMENTS = ("train", "iris")
COMMAND = [sys.executable, "-m", "flows.cli", *ARGUMENTS]
# Generous for a machine that others use too; importing TensorFlow alone takes longer.
FIRST_SECONDS = 3.0


def environment(**paths: Path) -> dict[str, str]:
    """Of a user who has set nothing but these paths; nobody listens on the ports."""
    ports = zip(("REST", "GRPC", "PREFECT", "MLFLOW"), free_ports(4), strict=True)
    ours = {f"HOTSWAP_{name}_PORT": str(port) for name, port in ports} | {"PYTHONPATH": str(PROJECT)}
    return without_settings() | ours | {name: str(path) for name, path in paths.items()}


@pytest.fixture
def new_home(
    tmp_path: Path, prefect_api: str, furnish: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment says where it is."""
    furnish(tmp_path / "home")
    for name, value in environment(HOTSWAP_HOME=tmp_path / "home", HOTSWAP_MODELS_REPO=tmp_path / "models").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PREFECT_API_URL", prefect_api)


@pytest.mark.usefixtures("new_home")
def test_on_a_terminal_it_says_at_once_what_it_does() -> None:
    """The first words come before anything heavy is loaded."""
    seconds, text = until_shown(COMMAND, "training iris")
    assert seconds < FIRST_SECONDS
    assert "training iris" in text[:200]


@pytest.mark.usefixtures("new_home")
def test_on_a_terminal_it_ends_with_its_result() -> None:
    """Each step has its turn, and the result stands alone."""
    shown = hotswap_on_a_terminal(*ARGUMENTS, "--epochs", "2")
    assert shown.code in (0, 3), shown.text[-2000:]
    steps = ("loading TensorFlow", "loading MLflow", "training epoch", "candidate evaluated", "gate decided")
    places = [shown.text.index(step) for step in steps]
    assert places == sorted(places)
    assert not any("loading" in line or "model=" in line for line in shown.lines)
    assert next(line for line in shown.lines if line).startswith("iris ")
    assert all(len(line) <= 80 for line in shown.lines)


@dataclass(frozen=True, slots=True)
class Trained:
    """A training in a subdirectory of a new project, its output read by a program, with a proxy that leads nowhere."""

    project: Path
    below: Path
    done: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, furnish: Callable[[Path], None], forked_sandbox: Path) -> Trained:
    directory = tmp_path_factory.mktemp("train")
    project, below = directory / "project", directory / "project" / "src"
    below.mkdir(parents=True)
    furnish(project / ".hotswap")
    done = subprocess.run(
        [*COMMAND, "--epochs", "25", "--json"],
        cwd=below,
        env=behind_a_dead_proxy(environment(HOME=directory / "user", HOTSWAP_SANDBOX_SERVER=forked_sandbox)),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Trained(project, below, done)


@pytest.mark.xdist_group("train-command")
def test_elsewhere_each_step_is_a_short_line_and_standard_output_has_the_data_only(trained: Trained) -> None:
    """In a pipe nothing moves; lines of progress fit 80 columns; --json is the only thing on standard output."""
    assert json.loads(trained.done.stdout)["decision"] == "passed"
    lines = trained.done.stderr.splitlines()
    assert lines[0].endswith("starting Prefect")
    assert any(line.endswith("loading TensorFlow") for line in lines)
    assert "\x1b" not in trained.done.stderr
    assert all(len(line) <= 80 for line in lines)


@pytest.mark.xdist_group("train-command")
def test_what_is_on_this_machine_is_reached_without_the_proxy(trained: Trained) -> None:
    """Prefect, sandbox and verification are servers of the training's own, each of which it has asked."""
    assert {"sandbox REST", "sandbox gRPC"} <= {each["check"] for each in json.loads(trained.done.stdout)["checks"]}
    assert "version verified" in trained.done.stderr


@pytest.mark.xdist_group("train-command")
def test_in_a_subdirectory_it_is_recorded_in_the_project(trained: Trained) -> None:
    """Its runs, its version and its identity are where those of the project are; the subdirectory stays empty."""
    outcome = json.loads(trained.done.stdout)
    assert outcome["version"] == 1
    assert list(trained.below.iterdir()) == []
    runs = mlflow.MlflowClient(sqlite_address(trained.project / ".hotswap" / "mlflow.db"))
    assert runs.get_run(outcome["run_id"]).info.status == "FINISHED"
    assert (trained.project / "models_repo" / "iris" / "1" / "saved_model.pb").exists()
