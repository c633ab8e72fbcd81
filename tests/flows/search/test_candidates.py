"""``hotswap train --candidates`` and ``--tune``: several candidates, and the best of them before the gate."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import mlflow
import psutil
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.promotion.deployment import Deployment
from flows.reconciliation.repair import repair
from flows.search.candidate import Order
from flows.search.processes import Cancelled, CandidateFailed, Nursery
from flows.settings import Settings
from flows.training.dataset import load_dataset
from serving.repository.store import Repository
from serving.server import Server
from tests.conftest import AS_UP, at_home, model_servers
from tests.faults.points import environment as environment_of
from tests.flows.search.searched_recipe import RECIPE as SEARCHED
from tests.processes import PYTHON, Piped, running, without_settings
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("candidates")]

RECIPE = str(Path(__file__).with_name("searched_recipe.py"))
SEED = 42
UNLUCKY = 43


class Home:
    """A home in which candidates are trained."""

    def __init__(self, directory: Path, prefect_api: str, server: Server, sandbox: Path, python: str) -> None:
        self.settings = Settings(
            home=directory / "home",
            models_repo=directory / "models",
            rest_port=server.rest_port,
            grpc_port=server.grpc_port,
            sandbox_server=sandbox,
        )
        self._prefect_api = prefect_api
        self._python = python

    def start(self, *arguments: str, recipe: str = RECIPE, **environment: str) -> Piped:
        ours = {**environment_of(self.settings), "PREFECT_API_URL": self._prefect_api, PYTHON: self._python}
        return running({**without_settings(), **ours, **environment}, "train", recipe, *arguments, "--json")

    def train(self, *arguments: str, exit_code: int = 0) -> dict[str, Any]:
        """The outcome of a training."""
        process = self.start(*arguments)
        output, errors = process.communicate()
        assert process.returncode == exit_code, errors
        found: dict[str, Any] = json.loads(output)
        return found

    def children(self, run_id: str) -> list[Any]:
        """The child runs of an MLflow run, in order."""
        client = self.client
        asked = f"tags.mlflow.parentRunId = '{run_id}'"
        found = client.search_runs([client.get_run(run_id).info.experiment_id], asked)
        return sorted(found, key=lambda run: str(run.info.run_name))

    @property
    def client(self) -> mlflow.MlflowClient:
        return mlflow.MlflowClient(os.environ["MLFLOW_TRACKING_URI"])

    def task_runs(self, run_id: str) -> dict[str, Any]:
        """The task runs of the training in Prefect, by name."""
        flow_run = UUID(self.client.get_run(run_id).data.tags["hotswap.prefect_flow_run_id"])
        asked = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run]))
        with temporary_settings({PREFECT_API_URL: self._prefect_api}), get_client(sync_client=True) as client:
            return {run.name: run for run in client.read_task_runs(flow_run_filter=asked)}


@pytest.fixture(scope="module")
def home(
    tmp_path_factory: pytest.TempPathFactory,
    prefect_api: str,
    furnish: Callable[[Path], None],
    forked_sandbox: Path,
    python: str,
) -> Iterator[Home]:
    """The environment points to it meanwhile."""
    directory = tmp_path_factory.mktemp("candidates")
    config = directory / "models.config"
    config.write_text("model_config_list {}")
    furnish(directory / "home")
    with at_home(directory / "home"), model_servers() as start:
        yield Home(directory, prefect_api, start(model_config_file=config, **AS_UP), forked_sandbox, python)


@pytest.fixture(scope="module")
def seeds(home: Home) -> dict[str, Any]:
    """The outcome of a training of three seeds, of which one cannot be trained."""
    return home.train("--candidates", "3")


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Processes to train candidates in, of a real Python."""
    with Nursery(tmp_path_factory.mktemp("nursery") / "log") as made:
        yield made


def order(saved_model: Path, seed: int = SEED, recipe: str = RECIPE, epochs: int = 3) -> Order:
    """A candidate of the recipe of these tests."""
    return Order(recipe, {}, load_dataset(SEARCHED).digest, seed, epochs, {}, saved_model, 1)


def ignored(*_: Any) -> None:
    """What is told of an epoch."""


def test_the_best_of_several_seeds_is_promoted(home: Home, seeds: dict[str, Any]) -> None:
    """Each is a child run in MLflow; the one with the smallest log loss on the validation rows goes live."""
    children = home.children(seeds["run_id"])
    losses = {int(run.data.params["seed"]): run.data.metrics.get("selection_log_loss") for run in children}
    able = {seed: loss for seed, loss in losses.items() if loss is not None}
    assert sorted(losses) == [SEED, UNLUCKY, SEED + 2]
    assert f"seed {min(able, key=able.__getitem__)}:" in seeds["chosen"]
    assert Repository(home.settings.models_repo).versions("searched") == [seeds["version"]]


def test_a_candidate_that_fails_is_recorded_and_the_others_go_on(home: Home, seeds: dict[str, Any]) -> None:
    """Its child run has failed and says why; those of the others and the parent are finished."""
    children = {int(run.data.params["seed"]): run for run in home.children(seeds["run_id"])}
    assert {seed: run.info.status for seed, run in children.items()} == {
        SEED: "FINISHED",
        UNLUCKY: "FAILED",
        SEED + 2: "FINISHED",
    }
    assert "this seed cannot be built" in children[UNLUCKY].data.tags["hotswap.error"]
    assert home.client.get_run(seeds["run_id"]).info.status == "FINISHED"


def test_candidates_are_task_runs_beside_each_other(home: Home, seeds: dict[str, Any]) -> None:
    """Prefect has a task run for each, and the second one has begun before the first one has ended."""
    runs = home.task_runs(seeds["run_id"])
    first, second = runs["candidate 1"], runs["candidate 2"]
    assert {runs[f"candidate {number}"].state_name for number in (1, 2, 3)} == {"Completed", "Failed"}
    assert second.start_time < first.end_time or os.cpu_count() == 1


def test_the_best_settings_are_trained_with_on_all_rows(home: Home) -> None:
    """The recipe's own settings are tried first; the run has the best ones, and its model was trained with them."""
    outcome = home.train("--tune", "2", "--epochs", "1", "--min-accuracy", "1", exit_code=3)
    children = home.children(outcome["run_id"])
    best = min(children, key=lambda run: float(run.data.metrics["selection_log_loss"]))
    run = home.client.get_run(outcome["run_id"])
    assert (children[0].data.params["width"], children[0].data.params["learning_rate"]) == ("4", "0.05")
    assert {run.data.params["epochs"], *(child.data.params["epochs"] for child in children)} == {"1"}
    assert {name: run.data.params[name] for name in ("width", "learning_rate")} == {
        name: best.data.params[name] for name in ("width", "learning_rate")
    }
    assert "train_loss" in run.data.metrics


def test_a_seed_gives_the_same_candidate_again(
    home: Home, seeds: dict[str, Any], nursery: Nursery, tmp_path: Path
) -> None:
    """Also alone, and after a process that ended, which is a candidate that failed; another seed gives another one."""
    with pytest.raises(CandidateFailed, match="its process ended"):
        nursery.train(order(tmp_path / "a", recipe=str(Path(__file__).with_name("ending_recipe.py"))), ignored)
    again = nursery.train(order(tmp_path / "b", epochs=SEARCHED.epochs), ignored)
    scores = {
        int(run.data.params["seed"]): -run.data.metrics["selection_log_loss"]
        for run in home.children(seeds["run_id"])
        if "selection_log_loss" in run.data.metrics
    }
    assert again.score == scores[SEED] != scores[SEED + 2]


def test_data_that_changed_meanwhile_are_refused(nursery: Nursery, tmp_path: Path) -> None:
    """A candidate is compared by the rows that the others are compared by."""
    other = order(tmp_path / "a")
    with pytest.raises(CandidateFailed, match="has changed since the training began"):
        nursery.train(Order(RECIPE, {}, "another", SEED, 3, {}, other.saved_model, 1), ignored)


def test_a_candidate_leaves_nothing_in_the_temporary_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even what AutoGraph puts there."""
    (temporary := tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    other, recipe = order(tmp_path / "a"), str(Path(__file__).with_name("converting_recipe.py"))
    with Nursery(tmp_path / "log") as nursery, pytest.raises(CandidateFailed, match="1 made"):
        nursery.train(replace(other, recipe=recipe), ignored)
    assert list(temporary.iterdir()) == []


@contextmanager
def in_the_middle(home: Home, directory: Path) -> Iterator[tuple[Piped, str]]:
    """A search whose two candidates would train for ever, and the id of its run."""
    recipe = str(Path(__file__).with_name("waiting_recipe.py"))
    process = home.start("--candidates", "2", "--seed", "7", recipe=recipe, WAITING_CANDIDATES=str(directory))
    until(lambda: len(list(directory.iterdir())) == 2)
    (run_id,) = {
        run.data.tags["mlflow.parentRunId"]
        for run in mlflow.search_runs(experiment_names=["searched"], output_format="list")
        if run.data.params.get("seed") == "7" and run.info.status == "RUNNING" and "mlflow.parentRunId" in run.data.tags
    }
    yield process, run_id


def assert_killed(home: Home, run_id: str) -> None:
    """The run and those of its candidates are closed as killed, and nothing was published meanwhile."""
    runs = [home.client.get_run(run_id), *home.children(run_id)]
    assert [run.info.status for run in runs] == ["KILLED"] * 3


@pytest.mark.soak
def test_ctrl_c_ends_all_candidates(home: Home, seeds: dict[str, Any], tmp_path: Path) -> None:
    """The command ends with 130, no process is left, and all runs are closed as killed."""
    with in_the_middle(home, tmp_path) as (process, run_id):
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        process.communicate()
    assert process.returncode == 130
    assert psutil.wait_procs(children, timeout=20)[1] == []
    assert_killed(home, run_id)
    assert Repository(home.settings.models_repo).versions("searched")[0] == seeds["version"]


@pytest.mark.soak
@pytest.mark.usefixtures("seeds")
def test_a_killed_search_leaves_no_process_and_no_open_run(home: Home, tmp_path: Path) -> None:
    """SIGKILL ends the candidates too, and a reconcile turn closes their runs."""
    with in_the_middle(home, tmp_path) as (process, run_id):
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.communicate()
    assert psutil.wait_procs(children, timeout=20)[1] == []
    repair(Deployment(home.settings, "searched"))
    assert_killed(home, run_id)


def test_a_search_that_has_ended_trains_no_more(tmp_path: Path) -> None:
    """Who asks for a candidate then is told so."""
    with Nursery(tmp_path / "log") as ended:
        pass
    with pytest.raises(Cancelled):
        ended.train(order(tmp_path / "a"), ignored)
