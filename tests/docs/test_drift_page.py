"""The page on drift is so: a model is asked, its log is compared, and the next candidate meets it."""

from __future__ import annotations

import json
import shlex
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import requests
from sklearn.datasets import load_iris
from tensorflow_serving.apis import prediction_log_pb2

from clients.rest_client import RestClient
from flows.registry.mlflow_registry import Registry
from serving.protocol.tensors import decode
from serving.request_log.files import Limits, LogFiles, log_files, whole_records
from tests.conftest import at_home
from tests.docs.pages import DOCS, commands
from tests.end_to_end.test_reconcile_flow import flow_runs
from tests.flows.commands.test_train import environment
from tests.processes import hotswap, running

DRIFT = [shlex.split(each.text)[1:] for each in commands(DOCS / "how-to" / "drift.md") if "hotswap drift" in each.text]
ASKED = 140


def shift(log: Path, later: Path) -> None:
    """The same log with flowers whose petals are 3 cm longer."""
    files = LogFiles(later, Limits(2**20, 3600.0, 2**21))
    for path in log_files(log):
        for content in whole_records(path):
            record = prediction_log_pb2.PredictionLog.FromString(content)
            tensor = record.predict_log.request.inputs["input"]
            tensor.tensor_content = (decode(tensor) + np.array([0, 0, 3, 0], np.float32)).tobytes()
            files.write([record.SerializeToString()])
    files.close()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_page_on_drift(
    tmp_path: Path, prefect_api: str, furnish: Callable[[Path], None], forked_sandbox: Path, soak: bool
) -> None:
    """
    Its commands find no drift in rows as in training, and the live accuracy.

    In the long form the log is replayed on a candidate, which the tests of the sandbox show too.
    """
    home = tmp_path / ".hotswap"
    furnish(home)
    variables = environment(HOTSWAP_HOME=home, HOTSWAP_MODELS_REPO=tmp_path / "models")
    variables |= {"PREFECT_API_URL": prefect_api, "HOTSWAP_REQUEST_LOG": "1"}
    variables |= {"HOTSWAP_SANDBOX_SERVER": str(forked_sandbox)}
    assert hotswap(variables, "train", "iris").returncode == 0
    flowers = load_iris()
    server = running(variables, "serve", "--json")
    address = json.loads(server.stdout.readline())["rest"]
    with RestClient(address) as client:
        for row in flowers.data[np.random.default_rng(1).permutation(150)[:ASKED]]:
            client.predict("iris", {"input": np.array([row], np.float32)}, label="stable")
    server.send_signal(signal.SIGTERM)
    server.communicate()
    names = ["sepal_length_cm", "sepal_width_cm", "petal_length_cm", "petal_width_cm"]
    truth = pd.DataFrame(flowers.data, columns=names).assign(species=flowers.target_names[flowers.target])
    truth.to_csv(tmp_path / "truth.csv", index=False)
    assert len(DRIFT) == 3
    done = [hotswap(variables, *each, directory=tmp_path) for each in DRIFT]
    assert [each.returncode for each in done] == [0, 0, 0], done
    assert f"iris has not drifted: {ASKED} rows" in " ".join(done[0].stdout.split())
    assert json.loads(done[1].stdout)["verdict"] == "stable"
    assert "Live accuracy" in done[2].stdout
    shift(home / "requests", tmp_path / "later")
    assert hotswap(variables, "drift", "iris", "--log", str(tmp_path / "later")).returncode == 8
    assert ("drift of iris", "Drifted") in flow_runs(prefect_api, "iris")
    assert requests.get(f"{prefect_api}/artifacts/drift-iris/latest", timeout=10).json()["type"] == "markdown"
    if soak:
        check_replay(variables, home)


def check_replay(variables: dict[str, str], home: Path) -> None:
    """The share of the logged requests that a candidate answers otherwise is a check of its gate."""
    trained = hotswap(variables, "train", "iris", "--seed", "3", "--json")
    replayed = [each for each in json.loads(trained.stdout)["checks"] if each["check"] == "sandbox replay"]
    with at_home(home):
        metrics = Registry(home / "artifacts")._client.get_run(json.loads(trained.stdout)["run_id"]).data.metrics
    assert [each["measured"] for each in replayed] == [f"{metrics['sandbox_disagreement']:.1%} differ"]
