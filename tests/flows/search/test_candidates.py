"""``hotswap train --candidates`` and ``--tune``: several candidates, and the best of them before the gate."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from tests.conftest import at_home
from tests.flows.search.searched_recipe import RECIPE as SEARCHED
from tests.processes import Piped, running, without_settings
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("candidates")]

RECIPE = str(Path(__file__).with_name("searched_recipe.py"))
SEED = 42
UNLUCKY = 43


class Home:
    """A home in which candidates are trained."""

    def __init__(self, directory: Path, prefect_api: str) -> None:
        self.settings = Settings(home=directory / "home", models_repo=directory / "models", rest_port=1, grpc_port=2)
        self._prefect_api = prefect_api

    def start(self, *arguments: str) -> Piped:
        ours = {"HOTSWAP_HOME": str(self.settings.home), "HOTSWAP_MODELS_REPO": str(self.settings.models_repo)}
        ports = {"HOTSWAP_REST_PORT": "1", "HOTSWAP_GRPC_PORT": "2", "PREFECT_API_URL": self._prefect_api}
        return running({**without_settings(), **ours, **ports}, "train", RECIPE, *arguments, "--json")

    def train(self, *arguments: str) -> dict[str, Any]:
        """The outcome of a training that passes."""
        process = self.start(*arguments)
        output, errors = process.communicate()
        assert process.returncode == 0, errors
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
def home(tmp_path_factory: pytest.TempPathFactory, prefect_api: str, furnish: Callable[[Path], None]) -> Iterator[Home]:
    """The environment points to it meanwhile."""
    made = Home(tmp_path_factory.mktemp("candidates"), prefect_api)
    furnish(made.settings.home)
    with at_home(made.settings.home):
        yield made


@pytest.fixture(scope="module")
def seeds(home: Home) -> dict[str, Any]:
    """The outcome of a training of three seeds, of which one cannot be trained."""
    return home.train("--candidates", "3")


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Processes to train candidates in."""
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
    outcome = home.train("--tune", "2", "--epochs", "4")
    children = home.children(outcome["run_id"])
    best = min(children, key=lambda run: float(run.data.metrics["selection_log_loss"]))
    run = home.client.get_run(outcome["run_id"])
    assert (children[0].data.params["width"], children[0].data.params["learning_rate"]) == ("4", "0.05")
    assert {run.data.params["epochs"], *(child.data.params["epochs"] for child in children)} == {"4"}
    assert {name: run.data.params[name] for name in ("width", "learning_rate")} == {
        name: best.data.params[name] for name in ("width", "learning_rate")
    }
    assert "train_loss" in run.data.metrics


def test_a_seed_gives_the_same_candidate_again(nursery: Nursery, tmp_path: Path) -> None:
    """Also beside others; another seed gives another one."""
    scores = [nursery.train(order(tmp_path / str(seed), seed % 100), ignored).score for seed in (42, 44, 142)]
    assert scores[0] == scores[2]
    assert scores[0] != scores[1]


def test_a_process_that_ends_is_a_candidate_that_failed(nursery: Nursery, tmp_path: Path) -> None:
    """Whoever waits for it is told, and the next one is trained."""
    with pytest.raises(CandidateFailed, match="its process ended"):
        nursery.train(order(tmp_path / "a", recipe=str(Path(__file__).with_name("ending_recipe.py"))), ignored)
    assert nursery.train(order(tmp_path / "b"), ignored).rows > 0


def test_data_that_changed_meanwhile_are_refused(nursery: Nursery, tmp_path: Path) -> None:
    """A candidate is compared by the rows that the others are compared by."""
    other = order(tmp_path / "a")
    with pytest.raises(CandidateFailed, match="has changed since the training began"):
        nursery.train(Order(RECIPE, {}, "another", SEED, 3, {}, other.saved_model, 1), ignored)


@contextmanager
def in_the_middle(home: Home) -> Iterator[tuple[Piped, str]]:
    """A search that trains and would do so for hours, and the id of its run."""
    before = {run.info.run_id for run in mlflow.search_runs(experiment_names=["searched"], output_format="list")}
    process = home.start("--candidates", "2", "--epochs", "100000", "--seed", "7")

    def both_train() -> list[Any]:
        found = mlflow.search_runs(experiment_names=["searched"], output_format="list")
        new = [run for run in found if run.info.run_id not in before]
        trained = [run for run in new if "train_loss" in run.data.metrics]
        return trained if len(trained) == 2 else []

    yield process, until(both_train)[0].data.tags["mlflow.parentRunId"]


def assert_killed(home: Home, run_id: str) -> None:
    """The run and those of its candidates are closed as killed, and nothing was published meanwhile."""
    runs = [home.client.get_run(run_id), *home.children(run_id)]
    assert [run.info.status for run in runs] == ["KILLED"] * 3


def test_ctrl_c_ends_all_candidates(home: Home, seeds: dict[str, Any]) -> None:
    """The command ends with 130, no process is left, and all runs are closed as killed."""
    with in_the_middle(home) as (process, run_id):
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        process.communicate()
    assert process.returncode == 130
    assert psutil.wait_procs(children, timeout=20)[1] == []
    assert_killed(home, run_id)
    assert Repository(home.settings.models_repo).versions("searched")[0] == seeds["version"]


@pytest.mark.soak
@pytest.mark.usefixtures("seeds")
def test_a_killed_search_leaves_no_process_and_no_open_run(home: Home) -> None:
    """SIGKILL ends the candidates too, and a reconcile turn closes their runs."""
    with in_the_middle(home) as (process, run_id):
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
