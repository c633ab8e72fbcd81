"""Models that come without a recipe, as ``hotswap promote`` takes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pytest

from flows.settings import sqlite_address
from flows.tables.evidence import evidence_of
from serving.repository.saved_model_files import digest
from serving.repository.store import Repository
from tests.flows.tables.given_models import (
    churn_model,
    churn_table,
    forgetful_model,
    numbers_model,
    numbers_table,
)
from tests.processes import hotswap, without_settings

pytestmark = pytest.mark.xdist_group("training")


@dataclass(frozen=True)
class Place:
    """A home of its own, with nobody on the ports of the settings."""

    directory: Path
    environment: dict[str, str]

    def run(self, *arguments: str) -> tuple[int, dict[str, Any], str]:
        """Exit code, document and standard error of a command."""
        done = hotswap(self.environment, *arguments, "--json", directory=self.directory)
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, json.loads(done.stdout or "{}"), done.stderr

    def promote(self, model: str, saved_model: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
        return self.run("promote", model, "--saved-model", str(saved_model), *arguments)

    @property
    def repository(self) -> Repository:
        return Repository(self.directory / "models_repo")


@pytest.fixture(scope="module")
def place(
    furnish: Callable[[Path], None], prefect_api: str, forked_sandbox: Path, tmp_path_factory: pytest.TempPathFactory
) -> Place:
    directory = tmp_path_factory.mktemp("given")
    furnish(directory / ".hotswap")
    ports = {"HOTSWAP_REST_PORT": "1", "HOTSWAP_GRPC_PORT": "2", "PREFECT_API_URL": prefect_api}
    return Place(directory, {**without_settings(), **ports, "HOTSWAP_SANDBOX_SERVER": str(forked_sandbox)})


def test_a_plain_export_is_judged_by_rows_in_a_file(place: Place) -> None:
    """Numbers in one input of any name: a regression is measured, goes live, and its very files are kept."""
    saved_model = numbers_model(place.directory)
    rows = ("--csv", str(numbers_table(place.directory)), "--target", "y")
    code, outcome, _ = place.promote("numbers", saved_model, *rows)
    assert (code, outcome["decision"], outcome["version"]) == (0, "passed", 1)
    assert outcome["metrics"]["test_r2"] > 0.98
    assert "dummy baseline" in [check["check"] for check in outcome["checks"]]
    assert digest(place.repository.path("numbers", 1)) == digest(saved_model)
    assert place.repository.stamp("numbers", 1).features == ("a", "b", "c")

    named = ("promote", "numbers", "--saved-model", str(saved_model))
    again = hotswap(place.environment, *named, *rows, directory=place.directory)
    sentence = "numbers version 1 has these very files and carries label stable already: nothing has changed."
    assert (again.returncode, again.stdout.splitlines()[0]) == (0, sentence)
    assert place.repository.versions("numbers") == [1]


@pytest.fixture(scope="module")
def unevaluated(place: Place) -> dict[str, Any]:
    """The outcome of the promotion of a model of a number and a word, as a canary, without a row to judge it by."""
    arguments = ("--label", "canary", "--unevaluated", "no rows yet", "--reason", "a first try")
    code, outcome, _ = place.promote("churn", churn_model(place.directory), *arguments)
    assert (code, outcome["decision"], outcome["label"], outcome["metrics"]) == (0, "passed", "canary", {})
    return outcome


def test_who_goes_live_unevaluated_is_known_as_such(place: Place, unevaluated: dict[str, Any]) -> None:
    """The rows are made from its signature; journal, MLflow and explain say that it was not evaluated, and why."""
    version = unevaluated["version"]
    assert "sandbox rows apart" in [check["check"] for check in unevaluated["checks"]]
    assert len(place.repository.stamp("churn", version).golden or ()) > 0
    _, explained, _ = place.run("explain", "churn", str(version))
    assert explained["unevaluated"] == "no rows yet"
    history = hotswap(place.environment, "history", "churn", directory=place.directory).stdout
    assert "a first try; not evaluated: no rows yet" in history
    client = mlflow.MlflowClient(sqlite_address(place.directory / ".hotswap" / "mlflow.db"))
    assert client.get_run(unevaluated["run_id"]).data.tags["hotswap.unevaluated"] == "no rows yet"


def test_inputs_of_any_name_and_type_are_asked_with_their_columns(place: Place, unevaluated: dict[str, Any]) -> None:
    """A number and a word: one sigmoid is judged as two classes, and the files of a canary become stable."""
    rows = ("--csv", str(churn_table(place.directory)), "--target", "churned")
    code, stable, _ = place.promote("churn", place.directory / "churn", *rows)
    assert (code, stable["decision"], stable["label"], stable["was_there"]) == (0, "passed", "stable", True)
    assert stable["metrics"]["test_accuracy"] > 0.8
    assert stable["version"] == unevaluated["version"]
    assert place.repository.versions("churn") == [unevaluated["version"]]


def test_a_model_that_loads_and_cannot_answer_is_rejected(place: Place) -> None:
    """The reason says that what it computes with was not restored."""
    saved_model = forgetful_model(place.directory)
    code, outcome, _ = place.promote("forgetful", saved_model, "--unevaluated", "no rows yet")
    assert (code, outcome["decision"], outcome["version"]) == (3, "rejected", None)
    assert "what it computes with was not restored from its files" in outcome["reason"]
    assert place.repository.versions("forgetful") == []


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({}, "--csv FILE --target COLUMN, or not at all, --unevaluated REASON"),
        ({"csv": "rows.csv"}, "by --target COLUMN"),
        ({"target": "y"}, "--target is about held-out rows"),
        ({"csv": "rows.csv", "target": "y", "unevaluated": "why"}, "leave one out"),
        ({"csv": "rows.csv", "target": "y", "task": "guessing"}, "classification or regression"),
    ],
)
def test_what_a_model_is_judged_by_has_to_be_said(parameters: dict[str, str], told: str) -> None:
    """Without a recipe one sentence names both ways."""
    from serving.protocol.errors import HotswapError

    with pytest.raises(HotswapError, match=told):
        evidence_of("mine", parameters)
