"""A home in which Iris is trained, once for all of these tests."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pytest

from flows.promotion_steps import gate, move_label, try_in_sandbox, verify
from flows.settings import Settings, apply_environment
from serving.repository.store import Repository
from tests.faults.points import after, at, before
from tests.processes import Piped, run_hotswap, running, without_settings


@dataclass(frozen=True)
class Home:
    """Where trainings ran."""

    settings: Settings
    prefect_api: str
    sandbox: Path

    @property
    def repository(self) -> Repository:
        return Repository(self.settings.models_repo)

    def train(self, *arguments: str, **environment: str) -> tuple[int | None, dict[str, Any]]:
        """Exit code and outcome of ``hotswap train``."""
        return _ended(self.running("train", *arguments, **environment))

    def promote(self, *arguments: str, **environment: str) -> tuple[int | None, dict[str, Any]]:
        """Exit code and outcome of ``hotswap promote``."""
        return _ended(self.running("promote", *arguments, **environment))

    def running(self, *arguments: str, **environment: str) -> Piped:
        """A command of ``hotswap``, running."""
        return running(self.environment(**environment), *arguments, "--json")

    def environment(self, **environment: str) -> dict[str, str]:
        """Of its commands."""
        ours = {"HOTSWAP_HOME": str(self.settings.home), "HOTSWAP_MODELS_REPO": str(self.settings.models_repo)}
        ports = {"HOTSWAP_REST_PORT": "1", "HOTSWAP_GRPC_PORT": "2"}
        others = {"PREFECT_API_URL": self.prefect_api, "HOTSWAP_SANDBOX_SERVER": str(self.sandbox)}
        return {**without_settings(), **ours, **ports, **others, **environment}


def _ended(process: Piped) -> tuple[int | None, dict[str, Any]]:
    stdout, stderr = process.communicate()
    assert "Traceback" not in stderr, stderr
    return process.returncode, json.loads(stdout)


@pytest.fixture(scope="package")
def home(
    tmp_path_factory: pytest.TempPathFactory, prefect_api: str, furnish: Callable[[Path], None], forked_sandbox: Path
) -> Iterator[Home]:
    """A home of its own; the environment points to it meanwhile."""
    before = dict(os.environ)
    directory = tmp_path_factory.mktemp("training")
    settings = Settings(home=directory / "home", models_repo=directory / "models")
    furnish(settings.home)
    for name in ("MLFLOW_TRACKING_URI", "PREFECT_HOME"):
        os.environ.pop(name, None)
    apply_environment(settings)
    mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
    yield Home(settings, prefect_api, forked_sandbox)
    mlflow.set_tracking_uri(None)
    os.environ.clear()
    os.environ.update(before)


def clocked(clock: Path, arguments: Sequence[str]) -> None:
    """``hotswap train …``, which notes its processor time before and after gate and sandbox, and verification."""

    def note() -> None:
        with clock.open("a") as file:
            file.write(f"{time.process_time()}\n")

    points = (before(gate), after(try_in_sandbox), before(verify), after(move_label))
    with ExitStack() as watched:
        for point in points:
            watched.enter_context(at(point, note))
        run_hotswap(arguments)


@pytest.fixture(scope="package")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `clocked` has noted in the training of `iris`."""
    return tmp_path_factory.mktemp("clock") / "seconds"


@pytest.fixture(scope="package")
def iris(home: Home, clock: Path) -> dict[str, Any]:
    """The outcome of a training of Iris."""
    arguments = ["train", "iris", "--reason", "the first flowers", "--bake", "600", "--json"]
    code, outcome = _ended(Piped(home.environment(), clocked, clock, arguments))
    assert code == 0
    return outcome
