"""The whole flow, as ``hotswap train`` runs it."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import requests

from flows.events import Kind
from flows.events.outbox import Channel, waiting
from flows.journal import Journal
from flows.promotion import labelling
from flows.promotion.deployment import Deployment
from flows.promotion.labels import Labels
from flows.promotion_steps import gate, move_label, try_in_sandbox, verify
from flows.settings import Settings, apply_environment
from serving.repository.saved_model_files import digest
from serving.repository.store import Repository
from tests.faults.points import after, at, before
from tests.processes import Piped, run_hotswap, running, without_settings

pytestmark = pytest.mark.xdist_group("training")  # one worker trains, once for all of these


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


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `clocked` has noted in the training of `iris`."""
    return tmp_path_factory.mktemp("clock") / "seconds"


@pytest.fixture(scope="module")
def iris(home: Home, clock: Path) -> dict[str, Any]:
    """The outcome of a training of Iris."""
    arguments = ["train", "iris", "--reason", "the first flowers", "--bake", "600", "--json"]
    code, outcome = _ended(Piped(home.environment(), clocked, clock, arguments))
    assert code == 0
    return outcome


@pytest.fixture(scope="module")
def run(iris: dict[str, Any]) -> Any:
    """The MLflow run of `iris`."""
    return mlflow.MlflowClient().get_run(iris["run_id"])


def test_iris_is_good_enough_and_published(home: Home, iris: dict[str, Any]) -> None:
    """At least 0.93 of the held-out rows are right, and the version is on disk under the registry's number."""
    assert iris["decision"] == "passed"
    assert iris["metrics"]["test_accuracy"] >= 0.93
    assert home.repository.versions("iris") == [iris["version"]]
    registered = mlflow.MlflowClient().get_model_version_by_alias("iris", "champion")
    assert int(registered.version) == iris["version"]


def test_what_is_published_is_what_is_registered(home: Home, iris: dict[str, Any]) -> None:
    """Directory, registry tag and outcome have one digest."""
    registered = mlflow.MlflowClient().get_model_version("iris", str(iris["version"]))
    assert digest(home.repository.path("iris", iris["version"])) == iris["digest"]
    assert iris["digest"] in registered.tags.values()


def test_the_reason_of_a_training_is_kept(home: Home, iris: dict[str, Any]) -> None:
    """The journal's entry of a promotion says why the training was started."""
    promoted = Journal(home.settings.models_repo, "iris").read()[1]
    assert (promoted.action, promoted.version) == ("promote", iris["version"])
    assert promoted.facts["why"] == "the first flowers"


@pytest.mark.usefixtures("iris")
def test_the_champion_answers_in_mlflow_too() -> None:
    """``mlflow.pyfunc`` loads the alias and gives class probabilities for plain lists."""
    probabilities = mlflow.pyfunc.load_model("models:/iris@champion").predict(
        [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]
    )
    assert np.argmax(probabilities, axis=1).tolist() == [0, 2]


def test_a_run_tells_how_the_model_came_about(run: Any, iris: dict[str, Any]) -> None:
    """Parameters, metrics by epoch and at the end, timings, commit, flow run and the gate's verdict are all there."""
    assert run.info.status == "FINISHED"
    assert {"recipe", "seed", "epochs", "min_accuracy", "learning_rate", "batch_size"} <= run.data.params.keys()
    assert {
        "test_accuracy",
        "test_macro_f1",
        "test_log_loss",
        "seconds/train",
        "seconds/publish",
    } <= run.data.metrics.keys()
    assert {"optimizer", "loss", "layers", "weights", "version_tensorflow", "version_keras"} <= run.data.params.keys()
    assert run.data.tags["mlflow.source.name"].endswith("flows/recipes/iris.py")
    assert run.data.tags["mlflow.user"]
    kept = {each.path for each in mlflow.MlflowClient().list_artifacts(run.info.run_id)}
    assert {"model_summary.txt", "recipe", "gate.md", "sandbox.md"} <= kept
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "train_loss")
    assert [metric.step for metric in history] == list(range(1, int(run.data.params["epochs"]) + 1))
    tags = "\n".join(f"{key}={value}" for key, value in run.data.tags.items())
    assert "gate.champion=passed: none" in tags
    for told in ("git.commit", "dirty", "prefect_flow_run_id", "prefect_flow_run_url", "gate=passed", "dataset_digest"):
        assert told in tags, tags
    assert iris["seconds"].keys() >= {
        "load",
        "train",
        "evaluate",
        "gate",
        "sandbox",
        "register",
        "publish",
        "verify",
        "label",
    }


def test_a_registered_version_says_what_it_is(iris: dict[str, Any], run: Any) -> None:
    """It has a description with its metrics, and its logged model names the version."""
    client = mlflow.MlflowClient()
    registered = client.get_model_version("iris", str(iris["version"]))
    assert f"accuracy {iris['metrics']['test_accuracy']:.4f}" in registered.description
    (output,) = run.outputs.model_outputs
    shown = json.loads(client.get_logged_model(output.model_id).tags["mlflow.modelVersions"])
    assert {"name": "iris", "version": iris["version"]} in [{**each, "version": int(each["version"])} for each in shown]


@pytest.mark.usefixtures("iris")
def test_the_proof_is_cheap(clock: Path) -> None:
    """Gate, sandbox and verification take at most 1.5 s of processor time, 0.5 s of these with the version on disk."""
    began, tried, published, ended = map(float, clock.read_text().split())
    assert ended - published <= 0.5
    assert tried - began + ended - published <= 1.5


def test_a_run_has_its_data_pictures_and_reports(run: Any) -> None:
    """Both splits are logged through the dataset API; confusion matrix and gate report are files of the run."""
    assert {tag.value for each in run.inputs.dataset_inputs for tag in each.tags} == {"training", "testing"}
    files = {file.path for file in mlflow.MlflowClient().list_artifacts(run.info.run_id)}
    assert {
        "confusion_matrix.png",
        "confusion_matrix.json",
        "evaluation.png",
        "gate.md",
        "gate.json",
        "sandbox.md",
        "sandbox.json",
    } <= files


@pytest.mark.usefixtures("iris")
def test_a_registered_version_has_signature_and_example() -> None:
    """MLflow's page shows what goes in and what comes out."""
    info = mlflow.models.get_model_info("models:/iris@champion")
    assert info.signature is not None
    assert info.saved_input_example_info is not None


def test_without_a_server_nothing_is_watched(iris: dict[str, Any]) -> None:
    """However long that was to last."""
    assert iris["seconds"]["bake"] < 5


def test_a_rejected_model_is_recorded_and_not_published(home: Home, iris: dict[str, Any]) -> None:
    """Exit code 3; the run has everything, the flow run is called Rejected, and what was live stays live."""
    code, outcome = home.train("iris", "--epochs", "1", "--min-accuracy", "1", "--seed", "3")
    assert (code, outcome["decision"], outcome["version"]) == (3, "rejected", None)
    assert home.repository.versions("iris") == [iris["version"]]
    run = mlflow.MlflowClient().get_run(outcome["run_id"])
    assert run.info.status == "FINISHED"
    assert "rejected" in run.data.tags.values()
    assert "test_accuracy" in run.data.metrics
    assert _flow_state(home, run) == "Rejected"


@pytest.fixture(scope="module")
def held_up(home: Home) -> tuple[int | None, dict[str, Any]]:
    """The exit code and outcome of a training whose model answers otherwise when its rows are asked together."""
    return home.train("tests.flows.training.comparing_recipe:UNSAID")


def test_a_model_that_fails_in_the_sandbox_is_recorded_and_not_published(
    home: Home, held_up: tuple[int | None, dict[str, Any]]
) -> None:
    """Exit code 4; run and flow run say why, with the server's last lines."""
    code, outcome = held_up
    assert (code, outcome["decision"], outcome["version"]) == (4, "sandbox rejected", None)
    assert "its answer to a row depends on the rows that are asked with it" in outcome["reason"]
    assert "rows_independent=False" in outcome["reason"]
    assert outcome["checks"][-1]["check"] == "sandbox rows apart"
    assert outcome["log"]
    assert home.repository.versions("comparing_unsaid") == []
    run = mlflow.MlflowClient().get_run(outcome["run_id"])
    assert run.data.tags["hotswap.sandbox"] == "rejected"
    assert "depends on the rows" in run.data.tags["hotswap.sandbox_reason"]
    told = [each.event for each in waiting(home.settings, Channel.NOTIFY) if each.event.kind is Kind.REJECTED]
    assert outcome["reason"] in [event.why for event in told]
    assert _flow_state(home, run) == "Rejected"


def test_a_model_that_was_held_up_can_be_promoted_later(home: Home, held_up: tuple[int | None, dict[str, Any]]) -> None:
    """
    Its run keeps it; it is judged again as if it had just been trained, in a run of its own.

    Where the recipe says that rows depend on one another, they are asked together as they were judged.
    """
    _, before = held_up
    code, outcome = home.promote("tests.flows.training.comparing_recipe", "--run", before["run_id"])
    assert (code, outcome["decision"]) == (0, "passed"), outcome
    assert outcome["metrics"] == before["metrics"]
    assert Labels(home.repository, "comparing").read()["stable"] == outcome["version"]
    run = mlflow.MlflowClient().get_run(outcome["run_id"])
    assert run.data.params["candidate"] == f"run {before['run_id']}"


def elsewhere(home: Home, iris: dict[str, Any], directory: Path) -> Path:
    """The model of Iris with one more file, so that it is another one."""
    shutil.copytree(home.repository.path("iris", iris["version"]), directory)
    (directory / "assets.extra" / "place").write_text(str(directory))
    return directory


@pytest.fixture(scope="module")
def canary(home: Home, iris: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The outcome of the promotion of a directory, as a canary."""
    source = elsewhere(home, iris, tmp_path_factory.mktemp("elsewhere") / "model")
    code, outcome = home.promote("iris", "--saved-model", str(source), "--label", "canary")
    assert (code, outcome["decision"], outcome["digest"]) == (0, "passed", digest(source))
    assert Labels(home.repository, "iris").read() == {"stable": iris["version"], "canary": outcome["version"]}
    return outcome


@pytest.fixture(scope="module")
def made_stable(home: Home, canary: dict[str, Any]) -> dict[str, Any]:
    """The outcome of the promotion of that canary."""
    code, outcome = home.promote("iris", "--version", str(canary["version"]))
    assert (code, outcome["decision"], outcome["label"]) == (0, "passed", "stable")
    assert Labels(home.repository, "iris").read() == {"stable": canary["version"]}
    process = home.running("promote", "iris", "--version", str(canary["version"]))
    _, stderr = process.communicate()
    assert (process.returncode, "is the stable one already" in stderr) == (1, True)
    return outcome


def test_a_model_from_elsewhere_is_promoted_with_its_very_files(home: Home, canary: dict[str, Any]) -> None:
    """A directory is copied, judged, registered and published."""
    assert digest(home.repository.path("iris", canary["version"])) == canary["digest"]


def test_a_canary_is_made_stable_later_by_the_same_checks(
    home: Home, canary: dict[str, Any], made_stable: dict[str, Any]
) -> None:
    """It is judged beside what is stable, gets no new number, and is the stable version then."""
    assert canary["label"] == "canary"
    assert (made_stable["version"], made_stable["digest"]) == (canary["version"], canary["digest"])
    assert [check["check"] for check in made_stable["checks"]] == [check["check"] for check in canary["checks"]]
    run = mlflow.MlflowClient().get_run(made_stable["run_id"])
    assert run.data.params["candidate"] == f"version {canary['version']}"


@dataclass(frozen=True)
class Overtaken:
    """What became of a training of which the label moved away while it waited for the lock."""

    live: int
    """what was stable when it began"""
    told_before: str
    """until it waited"""
    told_after: str
    outcome: dict[str, Any]


@pytest.fixture(scope="module")
def overtaken(home: Home, iris: dict[str, Any], made_stable: dict[str, Any]) -> Overtaken:
    """Another seed, while the label goes back from the second version to that of `iris`."""
    live = Labels(home.repository, "iris").read()["stable"]
    assert live == made_stable["version"]
    with home.repository.lock("iris"):
        process = home.running("train", "iris", "--seed", "2")
        told = list(takewhile(lambda line: "gate decided" not in line, process.stderr))
        nobody = home.settings.model_copy(update={"rest_port": 1, "grpc_port": 2})
        labelling.move(Deployment(nobody, "iris"), "stable", iris["version"])
    stdout, rest = process.communicate()
    assert process.returncode == 0, rest
    return Overtaken(live, "".join(told), rest, json.loads(stdout))


def test_the_next_training_is_compared_with_what_is_live(iris: dict[str, Any], overtaken: Overtaken) -> None:
    """Another seed passes; the report and the run tell the champion, evaluated again on the same rows."""
    outcome = overtaken.outcome
    assert outcome["decision"] == "passed"
    assert outcome["version"] > iris["version"]
    checks = {each["check"]: each for each in outcome["checks"]}
    accuracy = iris["metrics"]["test_accuracy"]
    assert checks["champion"]["measured"] == f"version {iris['version']}, accuracy {accuracy:.4f}"
    assert checks.keys() >= {"non-inferiority", "contract", "golden rows", "slices by class", "unsafe ops", "size"}
    run = mlflow.MlflowClient().get_run(outcome["run_id"])
    assert run.data.metrics["champion_accuracy"] == pytest.approx(accuracy)
    assert run.data.metrics["accuracy_difference_lower"] > -0.15
    report = mlflow.artifacts.load_dict(f"{run.info.artifact_uri}/gate.json")
    assert report["comparison"]["rows"] == 30
    assert report["checks"] == outcome["checks"][: len(report["checks"])]


def test_who_is_overtaken_is_compared_again(iris: dict[str, Any], overtaken: Overtaken) -> None:
    """While a training waits for the lock, the label moves: it is judged again, against what is live then."""
    assert overtaken.live != iris["version"]
    assert f"champion evaluated version={overtaken.live} " in overtaken.told_before
    assert f"champion evaluated version={iris['version']} " in overtaken.told_after
    checks = {each["check"]: each for each in overtaken.outcome["checks"]}
    assert checks["champion"]["measured"].startswith(f"version {iris['version']},")


def test_a_model_with_unsafe_ops_is_rejected_without_being_run(
    home: Home, iris: dict[str, Any], tmp_path: Path
) -> None:
    """Exit code 3, with the report in its run; the file that it would write is not there."""
    import tensorflow as tf

    written, saved_model = tmp_path / "written", tmp_path / "saved_model"

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="input")])  # type: ignore[untyped-decorator]
    def writes(input: Any) -> dict[str, Any]:
        tf.io.write_file(str(written), "x")
        return {"output": tf.nn.softmax(input[:, :3])}

    tf.saved_model.save(tf.Module(), str(saved_model), signatures={"serving_default": writes})
    versions = home.repository.versions("iris")
    code, outcome = home.promote("iris", "--saved-model", str(saved_model))
    assert (code, outcome["decision"], outcome["version"]) == (3, "rejected", None)
    assert "WriteFile" in outcome["reason"]
    assert not written.exists()
    assert home.repository.versions("iris") == versions
    run = mlflow.MlflowClient().get_run(outcome["run_id"])
    assert run.data.tags["hotswap.gate"] == "rejected"
    assert _flow_state(home, run) == "Rejected"


def test_a_run_without_a_model_is_reported(home: Home, iris: dict[str, Any]) -> None:
    """Exit code 1 and one sentence that names the run and the way out; nothing is published."""
    versions = home.repository.versions("iris")
    process = home.running("promote", "iris", "--run", "0" * 32)
    _, stderr = process.communicate()
    assert process.returncode == 1
    assert "0" * 32 in stderr.splitlines()[-1]
    assert "Traceback" not in stderr
    assert home.repository.versions("iris") == versions


@pytest.fixture(scope="module")
def spoiled(home: Home, iris: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a candidate; the files of all versions of `iris` are spoiled once it is copied."""
    source = elsewhere(home, iris, tmp_path_factory.mktemp("next") / "model")
    for version in home.repository.versions("iris"):
        (home.repository.path("iris", version) / "variables" / "variables.index").write_bytes(b"spoiled")
    return source


def test_a_champion_that_broke_holds_the_next_one_up(home: Home, spoiled: Path) -> None:
    """Nothing can be compared with, so nothing is published: exit code 3, and the way out is named."""
    live = home.repository.versions("iris")
    code, outcome = home.promote("iris", "--saved-model", str(spoiled))
    assert (code, outcome["decision"], outcome["version"]) == (3, "inconclusive", None)
    assert "is live and it cannot be evaluated" in outcome["reason"]
    assert "--allow-breaking" in outcome["reason"]
    assert home.repository.versions("iris") == live
    assert _flow_state(home, mlflow.MlflowClient().get_run(outcome["run_id"])) == "Inconclusive"


@pytest.mark.soak
def test_the_way_out_of_a_broken_champion_is_taken(home: Home, spoiled: Path) -> None:
    """The next one is published beside it."""
    live = home.repository.versions("iris")
    code, outcome = home.promote("iris", "--saved-model", str(spoiled), "--allow-breaking", HOTSWAP_KEEP_VERSIONS="10")
    assert (code, outcome["decision"]) == (0, "passed")
    assert home.repository.versions("iris") == [*live, outcome["version"]]


def _flow_state(home: Home, run: Any) -> str:
    """The name of the flow run's state, as Prefect has it."""
    flow_run = next(value for key, value in run.data.tags.items() if key.endswith("prefect_flow_run_id"))
    return str(requests.get(f"{home.prefect_api}/flow_runs/{flow_run}", timeout=10).json()["state_name"])
