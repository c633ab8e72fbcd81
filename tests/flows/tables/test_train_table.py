"""``hotswap train --csv``, from a file to a version that is live, and next week's file after it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest

from flows.tables.schema import Schema
from serving.repository.store import Repository
from tests.flows.tables.tables import customers, written
from tests.processes import hotswap, without_settings

pytestmark = pytest.mark.slow


class Home:
    """A home with the tables of a user in it."""

    def __init__(self, directory: Path, prefect_api: str, sandbox: Path) -> None:
        self.directory = directory
        servers = {"PREFECT_API_URL": prefect_api, "HOTSWAP_SANDBOX_SERVER": str(sandbox)}
        ports = {f"HOTSWAP_{name}_PORT": str(number) for number, name in enumerate(("REST", "GRPC"), 1)}
        paths = {"HOTSWAP_HOME": str(directory / "home"), "HOTSWAP_MODELS_REPO": str(directory / "models")}
        self._environment = {**without_settings(), **paths, **ports, **servers}

    def train(self, *arguments: str) -> CompletedProcess[str]:
        return hotswap(self._environment, "train", *arguments, "--json", directory=self.directory)


@pytest.fixture
def home(furnish: Callable[[Path], None], prefect_api: str, forked_sandbox: Path, tmp_path: Path) -> Home:
    furnish(tmp_path / "home")
    return Home(tmp_path, prefect_api, forked_sandbox)


def artifacts(home: Home) -> set[str]:
    return {path.name for path in (home.directory / "home").rglob("*") if path.is_file()}


def test_a_table_goes_live_and_is_held_against_next_weeks(home: Home) -> None:
    """A Parquet file passes every gate; a CSV without one of its columns ends in a sentence, nothing changed."""
    customers(800).to_parquet(home.directory / "churn.parquet")
    first = home.train("--csv", "churn.parquet", "--target", "churned", "--epochs", "4", "--drop", "spend")
    assert first.returncode == 0, first.stderr[-2000:]
    outcome = json.loads(first.stdout)
    assert (outcome["model"], outcome["version"], outcome["decision"]) == ("churn", 1, "passed")
    assert outcome["metrics"]["test_roc_auc"] > 0.8
    assert "customer_id  identifier  left out" in first.stderr
    assert {"importance.png", "columns.md", "worst_rows.json", "table.txt", "evaluation.png"} <= artifacts(home)
    version = Repository(home.directory / "models").path("churn", 1)
    schema = Schema.read(version)
    assert schema is not None
    assert [column.input for column in schema.columns] == ["age", "plan", "joined", "is_active", "note"]

    written(customers(900, seed=3).rename(columns={"age": "years"}), home.directory / "churn.csv")
    second = home.train("--csv", "churn.csv", "--target", "churned", "--drop", "spend")
    assert second.returncode == 1
    assert "has no column 'age', which the live version was trained with: if 'years' is the same" in second.stderr
    assert not Repository(home.directory / "models").path("churn", 2).exists()


@pytest.mark.soak
def test_numbers_are_predicted_too(home: Home) -> None:
    """A regression passes every gate, under a name of its own."""
    random = np.random.default_rng(0)
    frame = customers(600).drop(columns=["churned", "note"])
    frame["value"] = 3.0 * frame["age"] + 40 * (frame["plan"] == "plus") + random.normal(0, 5, len(frame))
    frame.to_parquet(home.directory / "some.parquet")
    done = home.train("--csv", "some.parquet", "--target", "value", "--name", "worth", "--epochs", "3")
    assert done.returncode == 0, done.stderr[-2000:]
    outcome = json.loads(done.stdout)
    assert (outcome["model"], outcome["version"]) == ("worth", 1)
    assert outcome["metrics"]["test_r2"] > 0.9


def test_a_bad_table_starts_nothing(home: Home) -> None:
    """It ends in one sentence before anything is started."""
    written(customers(), home.directory / "churn.csv")
    done = home.train("--csv", "churn.csv", "--target", "churn")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "hotswap: churn.csv has no column 'churn': did you mean 'churned'?\n"
    assert not (home.directory / "models").exists()
