"""What do `hotswap drift` and its flow say of a model, and where is it kept?"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from clients.grpc_client import GrpcClient
from flows.cli import run
from flows.drift.columns import columns_of
from flows.drift.fact import kept_facts
from flows.drift.profile import PROFILE_FILE, ColumnProfile, Profile
from flows.events.event import Kind
from flows.events.outbox import Channel, waiting
from flows.monitoring.collectors import Sources, what_has_drifted
from tests.conftest import ModelServer
from tests.pipelines import Pipeline

NAMES = ("a", "b", "c", "d")
SHIFTED = np.array([0, 0, 0, 2], np.float32)


def rows(seed: int, count: int) -> Any:
    return np.random.default_rng(seed).normal(0, 1, (count, 4)).astype(np.float32)


@pytest.fixture
def model(offline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """A model whose version 1 keeps the profile of a thousand rows."""
    offline.promote()
    columns = tuple(ColumnProfile.of(each) for each in columns_of({"input": rows(1, 1000)}, NAMES, {}))
    profile = Profile(columns, (), "output", "regression", feature_names=NAMES)
    profile.write(offline.repository.path(offline.model, 1))
    monkeypatch.setenv("HOTSWAP_MODELS_REPO", str(offline.settings.models_repo))
    return offline


@pytest.fixture
def logged(model: Pipeline, model_server: ModelServer, tmp_path: Path) -> Callable[[Any], Path]:
    """Asks a server with a request log for rows, one by one; gives the directory of the log."""

    def ask(asked: Any) -> Path:
        directory = tmp_path / "log"
        server = model_server(
            model_name=model.model,
            model_base_path=str(model.settings.models_repo.absolute() / model.model),
            request_log_directory=directory,
            request_log_sampling_rate=1.0,
            native_grpc=False,
        )
        with GrpcClient(f"127.0.0.1:{server.grpc_port}") as client:
            for row in asked:
                client.predict(model.model, {"input": row[None]})
        server.stop()
        return directory

    return ask


def drift(model: Pipeline, directory: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, Any]:
    """The exit code and the document of the command."""
    capsys.readouterr()
    code = run(["drift", model.model, "--log", str(directory), "--json", *options])
    return code, json.loads(capsys.readouterr().out)


def test_rows_as_in_training_have_not_drifted(
    model: Pipeline, logged: Callable[[Any], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit code is 0, nobody is told, and the answers are held against the truth where that is given."""
    asked = rows(2, 150)
    directory = logged(asked)
    truth = pd.DataFrame(asked, columns=list(NAMES)).assign(y=0.0)
    truth.head(50).to_csv(directory.parent / "truth.csv", index=False)
    code, document = drift(model, directory, capsys)
    assert (code, document["verdict"], document["rows"]) == (0, "stable", 150)
    assert [each["test"] for each in document["columns"]] == ["KS"] * 4
    assert not [each for each in waiting(model.settings, Channel.PREFECT) if each.event.kind is Kind.DRIFTED]


def test_rows_that_have_drifted(
    model: Pipeline, logged: Callable[[Any], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit code is 8; MLflow has report, picture and numbers, metrics and event say which columns they are."""
    code, document = drift(model, logged(rows(2, 150) + SHIFTED), capsys)
    assert (code, document["drifted"]) == (8, ["d"])
    assert "has drifted in d: 150 rows logged beside the training data of version 1" in document["reason"]
    (fact,) = [each for each in kept_facts(model.settings.home) if each["model"] == model.model]
    artifacts = {each.path for each in model.registry._client.list_artifacts(fact["run_id"])}
    assert artifacts >= {"drift.md", "drift.json", "drift.png"}
    assert model.registry._client.get_run(fact["run_id"]).data.metrics["psi.d"] > 1
    (event,) = [each.event for each in waiting(model.settings, Channel.PREFECT) if each.event.model == model.model
                and each.event.kind is Kind.DRIFTED]  # fmt: skip
    assert event.facts["columns"] == ["d"]
    values = {
        (sample.name, sample.labels.get("column")): sample.value
        for metric in what_has_drifted(Sources(model.settings))
        for sample in metric.samples
        if sample.labels["model"] == model.model
    }
    assert values["hotswap_drifted_columns", None] == 1
    assert values["hotswap_drift_psi", "d"] > 1 > values["hotswap_drift_psi", "a"]


def test_too_few_rows(model: Pipeline, logged: Callable[[Any], Path], capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code is 9, and one sentence says how many rows there are and how many are needed."""
    directory = logged(rows(2, 5) + SHIFTED)
    assert run(["drift", model.model, "--log", str(directory)]) == 9
    assert " ".join(capsys.readouterr().out.split()) == (
        f"5 rows of {model.model} were logged, and 100 are needed to compare them with the training data."
    )
    code, document = drift(model, directory, capsys, "--min-rows", "5")
    assert (code, document["rows"]) == (0, 5)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--since", "soon"], "'soon' is no time"),
        (["--target", "y"], "--target and --on are about the truth"),
        (["--version", "7"], "Version 7 of .* is not published"),
        (["--log", "/nowhere"], "There is no request log in /nowhere"),
    ],
)
def test_what_cannot_be_compared(
    model: Pipeline, capsys: pytest.CaptureFixture[str], options: list[str], why: str
) -> None:
    """What is wrong is said in one sentence, with exit code 1."""
    assert run(["drift", model.model, *options]) == 1
    assert re.search(why, " ".join(capsys.readouterr().err.split()))


def test_a_version_without_a_profile(model: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    """A version that was not trained here has nothing to be held against."""
    (model.repository.path(model.model, 1) / PROFILE_FILE).unlink()
    assert run(["drift", model.model]) == 1
    assert "keeps no profile of its training data" in " ".join(capsys.readouterr().err.split())
