"""A training that is interrupted leaves nothing half done."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import psutil
import pytest
import tensorflow as tf

from clients import GrpcClient
from flows.journal import Journal
from flows.promotion.deployment import Deployment
from flows.reconciliation.findings import find
from flows.reconciliation.repair import repair
from flows.registry.mlflow_registry import Registry
from flows.registry.run import Run
from flows.reports.status import VersionRow, status
from flows.settings import Settings, apply_environment
from flows.training.fit import fit
from serving.protocol.errors import HotswapError
from serving.repository.saved_model_files import digest
from serving.repository.store import Repository
from tests.conftest import wait_available
from tests.faults.points import Point, after, dying_at, environment
from tests.pipelines import Pipeline, examine_without_server
from tests.processes import Piped, run_hotswap, running, without_settings

pytestmark = pytest.mark.xdist_group("interrupted-training")  # one worker trains what is live for all of these

EARLY_POINTS = {
    "run started": after(Registry.start_run),
    "trained": after(fit),
    "evaluated": after(Run.log_evaluation),
    "gate decided": after(Run.log_decision),
    "sandbox decided": after(Run.log_sandbox),
    "registered": after(Registry.register),
}
SHORT = "registered"
"""what leaves the most"""


class Home:
    """A home whose trainings can be watched and interrupted."""

    def __init__(self, directory: Path, prefect_api: str, sandbox: Path) -> None:
        self.settings = Settings(
            sandbox_server=sandbox,
            home=directory / "home",
            models_repo=directory / "models",
            rest_port=1,
            grpc_port=2,
        )
        self.repository = Repository(self.settings.models_repo)
        self.environment = {**without_settings(), **environment(self.settings), "PREFECT_API_URL": prefect_api}

    def start(self, *arguments: str, point: Point | None = None, **variables: str) -> Piped:
        """``hotswap train iris`` or what the arguments say, which is killed at `point`."""
        environment, command = {**self.environment, **variables}, ("train", *(arguments or ["iris"]), "--json")
        if point is None:
            return running(environment, *command)
        return Piped(environment, dying_at, point, run_hotswap, (command,))

    def train(self) -> int:
        """The version that a training promotes."""
        training = self.start()
        output, errors = training.communicate()
        assert training.returncode == 0, errors
        version: int = json.loads(output)["version"]
        return version

    def newest_run(self) -> tuple[str, str]:
        """Id and status of the newest run in MLflow."""
        run = mlflow.search_runs(experiment_names=["iris"], max_results=1, output_format="list")[0]
        return run.info.run_id, run.info.status

    def status(self) -> dict[int, VersionRow]:
        return {row.version: row for row in status(self.settings, "iris")}


def like_iris(directory: Path, kind: int, name: str) -> Path:
    """The tiny model with no more signatures than a model of Iris has."""
    module = tf.Module()
    module.answer = tf.function(
        lambda input: {"output": tf.reduce_sum(input, 1, keepdims=True) * [[1.0, 10.0, 100.0]] + float(kind)},
        input_signature=[tf.TensorSpec([None, 4], tf.float32, name="input")],
    )
    tf.saved_model.save(module, str(directory / name), signatures=module.answer)
    return directory / name


@pytest.fixture(scope="module")
def home(
    tmp_path_factory: pytest.TempPathFactory, prefect_api: str, furnish: Callable[[Path], None], forked_sandbox: Path
) -> Iterator[Home]:
    """A home in which one version is live under the name of Iris; MLflow in this process looks there too."""
    before, directory = dict(os.environ), tmp_path_factory.mktemp("interrupted")
    home = Home(directory, prefect_api, forked_sandbox)
    furnish(home.settings.home)
    for name in ("MLFLOW_TRACKING_URI", "PREFECT_HOME"):
        os.environ.pop(name, None)
    apply_environment(home.settings)
    live = Pipeline(home.settings, Registry(home.settings.home / "artifacts"), "iris", like_iris, directory)
    live.promote(1)
    live.run.end("FINISHED")
    yield home
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.timeout(600)
def test_an_interrupted_training_changes_nothing_that_is_live(home: Home) -> None:
    """Ctrl-C and kill -9 leave no half version, moved label, stuck lock or process, and the next training tidies."""
    training = home.start()
    with nothing_live_changes(home, training, signal.SIGINT):
        assert any("training epoch=8" in line for line in training.stderr)
        children = psutil.Process(training.pid).children(recursive=True)
        training.send_signal(signal.SIGINT)
    assert psutil.wait_procs(children, timeout=20)[1] == []
    assert find(Deployment(home.settings, "iris")) == []
    training = home.start(point=after(Repository.publish))
    with nothing_live_changes(home, training, signal.SIGKILL):
        pass
    unfinished = [version for version, row in home.status().items() if row.state != "RETIRED" and not row.labels]
    assert len(unfinished) == 1
    version = home.train()
    rows = home.status()
    assert (rows[version].labels, rows[version].aliases) == (("stable",), ("champion",))
    assert version > max(unfinished)
    assert {rows[each].state for each in unfinished} == {"RETIRED"}
    assert find(Deployment(home.settings, "iris")) == []
    assert home.newest_run()[1] == "FINISHED"


@pytest.mark.parametrize(
    "point",
    [
        pytest.param(EARLY_POINTS[name], marks=() if name == SHORT else pytest.mark.soak, id=name)
        for name in EARLY_POINTS
    ],
)
def test_a_training_killed_before_it_publishes_is_reported_and_closed(point: Point, home: Home) -> None:
    """`status` and `doctor` tell that nobody has closed its run in MLflow, and `hotswap reconcile` does, as KILLED."""
    before = home.status()
    training = home.start(point=point)
    with nothing_live_changes(home, training, signal.SIGKILL):
        pass
    run_id, _ = home.newest_run()
    (finding,) = examine_without_server(home.settings)
    assert "has ended, but its run in MLflow is still open" in finding.what
    assert repair(Deployment(home.settings, "iris")).repaired == (finding,)
    assert home.newest_run() == (run_id, "KILLED")
    assert home.status() == before
    assert examine_without_server(home.settings) == []


def test_a_version_that_fails_the_requests_of_others_while_it_is_watched_is_undone(
    home: Home, model_server: Any
) -> None:
    """``hotswap train --bake`` ends with exit code 5, the version before is live again, and the journal says why."""
    (live,) = (version for version, row in home.status().items() if row.labels)
    config = home.repository.config_path
    server = model_server(model_config_file=config, allow_version_labels_for_unavailable_models=True)
    wait_available(server, "iris", live)
    training = home.start(
        *("tests.faults.fragile_recipe", "--bake", "100"),
        HOTSWAP_REST_PORT=str(server.rest_port),
        HOTSWAP_GRPC_PORT=str(server.grpc_port),
    )
    try:
        assert any("label moved" in line for line in training.stderr)
        with GrpcClient(f"127.0.0.1:{server.grpc_port}") as client:
            while not training.has_ended(within_seconds=0.01):
                version = client.predict("iris", np.ones((1, 4), np.float32), label="stable").version
                if version != live:
                    with suppress(HotswapError):
                        client.predict("iris", np.full((1, 4), 1e6, np.float32), version=version)
            assert client.predict("iris", np.ones((1, 4), np.float32), label="stable").version == live
            assert client.predict("iris", np.ones((1, 4), np.float32)).version == live
    finally:
        training.kill()
        output, errors = training.communicate()
    assert (training.returncode, output) == (5, ""), errors
    told = errors.splitlines()[-1]
    assert told.startswith("hotswap: Version ")
    assert "taken out again: while it was watched" in told
    assert "requests failed" in told
    last = Journal(home.settings.models_repo, "iris").read()[-1]
    assert (last.action, last.version) == ("undo", max(home.status()))
    assert "requests failed" in last.facts["why"]
    assert home.status()[live].aliases == ("champion",)
    assert home.newest_run()[1] == "FAILED"
    assert examine_without_server(home.settings) == []


@contextmanager
def nothing_live_changes(home: Home, training: Piped, ended_by: signal.Signals) -> Iterator[None]:
    """A training that is interrupted in the block leaves live what was live, whole, and holds no lock."""
    before = home.status()
    yield
    try:
        _, errors = training.communicate()
    finally:
        training.kill()
    assert training.returncode == (130 if ended_by is signal.SIGINT else -ended_by), errors
    after = home.status()
    live = [version for version, row in before.items() if row.labels == ("stable",)]
    assert [version for version, row in after.items() if row.labels == ("stable",)] == live
    for version in home.repository.versions("iris"):
        assert digest(home.repository.path("iris", version)) == after[version].digest
    with home.repository.lock("iris", timeout_seconds=0):
        pass
