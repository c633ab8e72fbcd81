"""What MLflow has of a training and of the version that came of it."""

from __future__ import annotations

import json
from typing import Any

import mlflow
import numpy as np
import pytest

pytestmark = pytest.mark.xdist_group("training")  # one worker trains, once for all of these


@pytest.fixture(scope="module")
def run(iris: dict[str, Any]) -> Any:
    """The MLflow run of `iris`."""
    return mlflow.MlflowClient().get_run(iris["run_id"])


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
