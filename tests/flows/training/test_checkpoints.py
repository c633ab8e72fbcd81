"""A training that is killed goes on from its last checkpoint."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

import mlflow
import psutil
import pytest
from filelock import FileLock

from flows.recipes.finding import find_recipe
from flows.registry.mlflow_registry import Registry
from flows.registry.run_checkpoints import RunCheckpoints
from flows.settings import sqlite_address
from flows.training import callbacks, fit
from flows.training.checkpoints import CannotResume, TrainingKey, checkpoint, interrupted
from flows.training.dataset import load_dataset
from tests.faults.points import after, dying_at
from tests.processes import Piped, hotswap, run_hotswap, running, without_settings

KEY = TrainingKey("iris", 42, 30, "abc")
LONG = 100_000


def only_with_its_run(home: Path, run: str) -> RunCheckpoints:
    """Leave the checkpoint of a run to its artifacts alone, as on another machine."""
    copies = Registry(home / "artifacts").run(run).checkpoints
    copies.keep(home / "checkpoints" / run)
    shutil.rmtree(home / "checkpoints" / run)
    return copies


@dataclass(frozen=True)
class Trainings:
    """A home of trainings, with nobody on the ports of the settings."""

    home: Path
    environment: dict[str, str]

    @property
    def kept(self) -> Path:
        return self.home / "checkpoints"

    @property
    def client(self) -> mlflow.MlflowClient:
        return mlflow.MlflowClient(sqlite_address(self.home / "mlflow.db"))

    def train(self, *arguments: str) -> CompletedProcess[str]:
        return hotswap(self.environment, "train", "iris", *arguments, "--json")


@pytest.fixture
def trainings(
    tmp_path: Path,
    prefect_api: str,
    furnish: Callable[[Path], None],
    forked_sandbox: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Trainings:
    home = tmp_path / "home"
    furnish(home)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", sqlite_address(home / "mlflow.db"))
    ours = {"HOTSWAP_HOME": str(home), "HOTSWAP_MODELS_REPO": str(tmp_path / "models"), "PREFECT_API_URL": prefect_api}
    others = {"HOTSWAP_REST_PORT": "1", "HOTSWAP_GRPC_PORT": "2", "HOTSWAP_SANDBOX_SERVER": str(forked_sandbox)}
    return Trainings(home, {**without_settings(), **ours, **others})


LONG_TRAINING = ("train", "iris", "--seed", "5", "--epochs", str(LONG), "--json")


@pytest.mark.slow
def test_a_training_goes_on_after_it_was_killed(trainings: Trainings) -> None:
    """With its seed and data, from the epoch kept with its run; its metrics are in MLflow until it was ended."""
    killed = Piped(trainings.environment, dying_at, after(callbacks.next_due), run_hotswap, (LONG_TRAINING,))
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    (state,) = trainings.kept.glob("*/state/training_metadata.json")
    run, reached = state.parent.parent.name, json.loads(state.read_text())["epoch"]
    assert interrupted(trainings.home, run, "iris").seed == 5
    copies = only_with_its_run(trainings.home, run)
    goes_on(trainings, run, reached)
    copies.drop()
    again = trainings.train("--resume", run)
    assert (again.returncode, again.stdout) == (1, "")
    assert "keeps no checkpoint" in again.stderr


@pytest.mark.soak
@pytest.mark.parametrize("ended_by", [signal.SIGKILL, signal.SIGINT])
def test_a_training_goes_on_whenever_it_was_ended(ended_by: signal.Signals, trainings: Trainings) -> None:
    """While it keeps its state, too; Ctrl-C says how it goes on."""
    training = running(trainings.environment, *LONG_TRAINING)
    while not (states := [*trainings.kept.glob("*/state/training_metadata.json.bkp")]):  # two have been kept
        assert training.returncode is None
    run = states[0].parent.parent.name
    children = psutil.Process(training.pid).children(recursive=True)
    training.send_signal(ended_by)
    _, errors = training.communicate()
    psutil.wait_procs(children, timeout=20)
    if ended_by is signal.SIGINT:
        assert f"--resume {run}" in errors
    goes_on(trainings, run, json.loads(states[0].with_suffix("").read_text() or states[0].read_text())["epoch"])


def goes_on(trainings: Trainings, run: str, reached: int) -> None:
    """It trains from the epoch `reached`, for ten more."""
    done = trainings.train("--resume", run, "--epochs", str(reached + 10))
    assert done.returncode in (0, 3), done.stderr  # so many epochs may be too many for the gate
    resumed = trainings.client.get_run(json.loads(done.stdout)["run_id"])
    steps = [each.step for each in trainings.client.get_metric_history(resumed.info.run_id, "train_loss")]
    assert reached < min(steps) < max(steps) == reached + 10
    assert resumed.data.params["seed"] == "5"
    assert run in resumed.data.tags.values()
    assert list(trainings.kept.iterdir()) == []


def fail_after_an_epoch(state: Path) -> None:
    state.mkdir()
    raise RuntimeError


def test_what_cannot_go_on_is_refused(tmp_path: Path) -> None:
    """A run without a checkpoint, of another model, of other data, or one that still runs."""
    with pytest.raises(RuntimeError), checkpoint(tmp_path, "a", KEY, None) as state:
        fail_after_an_epoch(state)
    assert interrupted(tmp_path, "a", "iris") == KEY
    with pytest.raises(CannotResume, match="those of a can"):
        interrupted(tmp_path, "b", "iris")
    with pytest.raises(CannotResume, match="trained 'iris'"):
        interrupted(tmp_path, "a", "digits")
    other = TrainingKey("iris", 42, 30, "def")
    with pytest.raises(CannotResume, match="has changed"), checkpoint(tmp_path, "c", other, "a"):
        pass
    lock = FileLock(tmp_path / "checkpoints" / "a" / "training.lock")
    with lock, pytest.raises(CannotResume, match="still runs"), checkpoint(tmp_path, "c", KEY, "a"):
        pass


def test_a_training_that_ends_or_has_kept_nothing_leaves_nothing(tmp_path: Path) -> None:
    """Its directory goes with it."""
    with checkpoint(tmp_path, "a", KEY, None) as state:
        state.mkdir()
    with pytest.raises(FileNotFoundError), checkpoint(tmp_path, "b", KEY, None) as state:
        state.rmdir()
    assert list((tmp_path / "checkpoints").iterdir()) == []


def checkpoint_of(directory: Path, epoch: int) -> Path:
    (directory / "state").mkdir(parents=True, exist_ok=True)
    (directory / "state" / "training_metadata.json").write_text(str(epoch))
    (directory / "training.json").write_text("{}")
    return directory


@pytest.fixture(params=["database", pytest.param("server", marks=pytest.mark.xdist_group("mlflow-server"))])
def tracking(request: pytest.FixtureRequest, mlflow_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's database, or a server."""
    is_server = request.param == "server"
    address = request.getfixturevalue("mlflow_url") if is_server else sqlite_address(mlflow_home / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)


@pytest.mark.usefixtures("tracking")
def test_the_newest_whole_copy_counts(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """The copies before it are gone, one that was cut off is passed over, and the end removes all of them."""
    registry = Registry(tmp_path / "artifacts")
    run = registry.start_run(request.node.name, "training", {}, {})
    assert not run.checkpoints.fetch(tmp_path / "none")
    for epoch in (1, 2):
        run.checkpoints.keep(checkpoint_of(tmp_path / "here", epoch))
    assert len(mlflow.MlflowClient().list_artifacts(run.id, "checkpoint")) == 1
    mlflow.MlflowClient().log_artifacts(run.id, str(tmp_path / "here" / "state"), f"checkpoint/{9:020d}9/state")
    assert run.checkpoints.fetch(tmp_path / "elsewhere" / "b")
    assert (tmp_path / "elsewhere" / "b" / "state" / "training_metadata.json").read_text() == "2"
    assert (tmp_path / "elsewhere" / "b" / "training.json").exists()
    run.checkpoints.drop()
    assert mlflow.MlflowClient().list_artifacts(run.id, "checkpoint") == []


def test_the_state_is_copied_while_it_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After it was written, and not in the first seconds."""
    copies: list[bool] = []

    def kept(name: str) -> callbacks.Kept:
        return callbacks.Kept(tmp_path / name, lambda: copies.append((tmp_path / name).exists()))

    recipe = find_recipe("iris")
    dataset = load_dataset(recipe)
    fit.fit(recipe, dataset, 1, 2, lambda epoch, metrics: None, kept("first"))
    assert copies == []
    monkeypatch.setattr(callbacks, "_FIRST_BACKUP_SECONDS", 0.0)
    monkeypatch.setattr(callbacks, "_FIRST_COPY_SECONDS", 0.0)
    monkeypatch.setattr(callbacks, "_TIME_SHARE", 0)
    fit.fit(recipe, dataset, 1, 2, lambda epoch, metrics: None, kept("second"))
    assert copies == [True, True]
