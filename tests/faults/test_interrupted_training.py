"""A training that is interrupted leaves nothing half done."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from flows.launch import TemporaryPrefect
from flows.promotion import VersionRow, status
from flows.settings import Settings, apply_environment
from serving.repository import Repository, digest

COMMAND = [sys.executable, "-m", "flows.cli", "train", "iris", "--json"]


class Home:
    """A home whose trainings can be watched and interrupted."""

    def __init__(self, directory: Path) -> None:
        self.settings = Settings(
            home=directory / "home",
            models_repo=directory / "models",
            rest_port=1,
            grpc_port=2,
            prefect_port=3,
        )
        self.repository = Repository(self.settings.models_repo)
        theirs = ("PREFECT_", "MLFLOW_", "HOTSWAP_")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(theirs)}
        ours = {
            f"HOTSWAP_{name.upper()}": str(value) for name, value in self.settings.model_dump(exclude_none=True).items()
        }
        self.environment = {**kept, **ours}

    def start(self, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            COMMAND,
            env={**self.environment, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def train(self) -> int:
        """The version that a training promotes."""
        training = self.start(PREFECT_API_URL=os.environ["PREFECT_API_URL"])
        output, errors = training.communicate(timeout=200)
        assert training.returncode == 0, errors
        version: int = json.loads(output)["version"]
        return version

    def status(self) -> dict[int, VersionRow]:
        return {row.version: row for row in status(self.settings, "iris")}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home with a Prefect server, in which one version of Iris is live; MLflow in this process looks there too."""
    before = dict(os.environ)
    # Whoever runs the tests in the background of a shell has Ctrl-C turned off, for all that they start too.
    interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)
    home = Home(tmp_path_factory.mktemp("interrupted"))
    for name in ("MLFLOW_TRACKING_URI", "PREFECT_HOME", "PREFECT_API_URL"):
        os.environ.pop(name, None)
    apply_environment(home.settings)
    prefect = TemporaryPrefect(home.settings)
    prefect.wait()
    home.train()
    yield home
    prefect.stop()
    signal.signal(signal.SIGINT, interrupt)
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.timeout(600)
def test_an_interrupted_training_changes_nothing_that_is_live(home: Home) -> None:
    """Ctrl-C and kill -9 leave no half version, moved label, stuck lock or process, and the next training tidies."""
    interrupt(home, signal.SIGINT, "training epoch=8")
    interrupt(home, signal.SIGKILL, "version registered")
    interrupt(home, signal.SIGKILL, "version published", own_prefect=True)
    unfinished = [version for version, row in home.status().items() if row.state != "RETIRED" and not row.labels]
    version = home.train()
    rows = home.status()
    assert (rows[version].labels, rows[version].aliases) == (("stable",), ("champion",))
    assert version > max(unfinished)
    assert {rows[each].state for each in unfinished} == {"RETIRED"}


def interrupt(home: Home, number: signal.Signals, moment: str, own_prefect: bool = False) -> None:
    """Interrupt a training when its log says `moment`, and look at what is left."""
    before = home.status()
    training = home.start(**({} if own_prefect else {"PREFECT_API_URL": os.environ["PREFECT_API_URL"]}))
    assert training.stderr is not None
    assert any(moment in line for line in training.stderr)
    children = psutil.Process(training.pid).children(recursive=True)
    training.send_signal(number)
    training.communicate(timeout=60)
    assert training.returncode == (130 if number is signal.SIGINT else -number)
    assert psutil.wait_procs(children, timeout=20)[1] == []
    after = home.status()
    live = [version for version, row in before.items() if row.labels == ("stable",)]
    assert [version for version, row in after.items() if row.labels == ("stable",)] == live
    if moment != "version published":
        assert after == before
    for version in home.repository.versions("iris"):
        assert digest(home.repository.path("iris", version)) == after[version].digest
    with home.repository.lock("iris", timeout_seconds=1):
        pass
