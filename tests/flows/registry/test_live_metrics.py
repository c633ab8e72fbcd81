"""Metrics that a run has while it trains, and the source that it is recorded with."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from flows.registry.mlflow_registry import Registry
from flows.registry.tags import source_tags
from serving.repository.saved_model_files import digest
from serving.repository.stamp import GoldenRows
from tests.pipelines import Pipeline


def test_a_run_has_its_epochs_and_the_use_of_the_machine_while_it_trains(offline: Pipeline) -> None:
    """What was recorded a second ago is there before the training ends, so a killed run keeps it."""
    client = mlflow.MlflowClient()

    def known() -> dict[str, float]:
        return dict(client.get_run(offline.run.id).data.metrics)

    with offline.run.training_metrics() as recorded:
        epoch, deadline = 0, time.monotonic() + 30
        while not {"train_loss", "system/cpu_utilization_percentage"} <= known().keys():
            assert time.monotonic() < deadline
            epoch += 1
            recorded.add(epoch, {"loss": 1 / epoch, "val_loss": 2 / epoch})
    history = client.get_metric_history(offline.run.id, "validation_loss")
    assert [each.step for each in history] == list(range(1, epoch + 1))


@pytest.mark.parametrize("known", [True, False])
def test_the_commit_is_that_of_the_recipe(known: bool, tmp_path: Path) -> None:
    """A recipe in a clone of one's own has that clone's commit, and one that git does not know has none."""
    recipe = tmp_path / "churn.py"
    recipe.write_text("RECIPE = None\n")

    def git(*arguments: str) -> str:
        who = ["-c", "user.name=A", "-c", "user.email=a@example.com"]
        command = ["git", "-C", str(tmp_path), *who, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "first")
    if known:
        git("add", "churn.py")
        git("commit", "-q", "-m", "second")
    tags = source_tags(recipe)
    assert tags["mlflow.source.name"] == str(recipe)
    assert tags.get("mlflow.source.git.commit") == (git("rev-parse", "HEAD") if known else None)


def test_mlflow_answers_a_data_frame_by_its_columns(offline: Pipeline, tmp_path: Path) -> None:
    """Numbers with missing values, words and integers go to the inputs of their names, in any order."""
    inputs = {
        "age": np.array([41.0, np.nan], np.float32),
        "plan": np.array(["basic", ""], object),
        "visits": np.array([3, 4]),
    }

    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.as_dtype(array.dtype), name) for name, array in inputs.items()]
    )  # type: ignore[untyped-decorator]
    def answer(age: Any, plan: Any, visits: Any) -> Any:
        known = tf.where(tf.math.is_nan(age), -1.0, age)
        return {"output": tf.stack([known + tf.cast(visits, tf.float32), tf.cast(plan == "basic", tf.float32)], 1)}

    path = tmp_path / "saved_model"
    module = tf.Module()
    module.answer = answer
    tf.saved_model.save(module, str(path), signatures={"serving_default": answer})
    expected = np.array([[44, 1], [3, 0]], np.float32)
    uri = offline.run.log_model(path, GoldenRows(inputs, {"output": expected}))
    frame = pd.DataFrame({"visits": [3, 4], "plan": ["basic", None], "age": [41.0, None]})
    np.testing.assert_array_equal(mlflow.pyfunc.load_model(uri).predict(frame), expected)


@pytest.mark.xdist_group("mlflow-server")
def test_runs_artifacts_and_versions_may_be_in_three_places(
    offline: Pipeline, mlflow_url: str, mlflow_home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Runs at a tracking server, files through its proxy, versions in a registry of another address."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_url)
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", f"sqlite:///{mlflow_home}/mlflow.db")
    registry, name = Registry(tmp_path / "artifacts"), f"far{os.getpid()}"
    far = Pipeline(offline.settings, registry, name, offline.sources, tmp_path, kept={})
    registered = far.register(1)
    assert digest(registered.saved_model) == registered.digest
    far.registry.describe(far.model, registered.version, "accuracy 0.5 on 7 held-out rows")
    client = mlflow.MlflowClient(mlflow_url, f"sqlite:///{mlflow_home}/mlflow.db")
    version = client.get_model_version(far.model, str(registered.version))
    assert version.description == "accuracy 0.5 on 7 held-out rows"
    logged = client.get_logged_model(version.source.removeprefix("models:/"))
    assert logged.artifact_location.startswith("mlflow-artifacts:")
    assert json.loads(logged.tags["mlflow.modelVersions"]) == [{"name": far.model, "version": registered.version}]
    run, runs = far.run.pages(mlflow_url)
    assert run == f"{runs}/{far.run.id}"
    assert runs.startswith(f"{mlflow_url}/#/experiments/")
