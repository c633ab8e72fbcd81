"""An upgrade by the commands of the page: a home and a repository that earlier releases left go on."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from flows.registry import mlflow_page
from flows.registry.mlflow_registry import Registry
from flows.settings import Settings, sqlite_address
from serving.repository.store import Repository
from tests.conftest import at_home
from tests.docs.pages import DOCS, commands
from tests.docs.test_tutorial import newcomer
from tests.earlier import older_mlflow, older_prefect, older_repository
from tests.pipelines import Pipeline
from tests.processes import Piped, hotswap

PAGE = DOCS / "how-to" / "upgrade.md"
MODEL = "tiny"
OUT_OF_DATE = "its tables are of an older release of MLflow): back it up, then run `mlflow db upgrade sqlite:///"


@pytest.fixture
def project(tmp_path: Path, furnish: Callable[[Path], None], tiny_model: Any) -> Path:
    """A project with versions 1 and 2 of a model, as earlier releases of MLflow, Prefect and ours left it."""
    directory = tmp_path / "project"
    home = directory / ".hotswap"
    furnish(home)
    settings = Settings(home=home, models_repo=directory / "models_repo", rest_port=1, grpc_port=2)
    with at_home(home):
        pipeline = Pipeline(settings, Registry(home / "artifacts"), MODEL, tiny_model, tmp_path)
        pipeline.promote(1)
        pipeline.promote(2)
        older_prefect(os.environ)
    older_repository(Repository(settings.models_repo), MODEL)
    older_mlflow(home / "mlflow.db")
    return directory


def of_status(directory: Path, environment: Mapping[str, str]) -> dict[int, tuple[str, list[str], list[str]]]:
    """By version of the model: its state, labels and aliases."""
    done = hotswap(environment, "status", MODEL, "--json", directory=directory)
    rows = json.loads(done.stdout)["versions"]
    return {row["version"]: (row["state"], row["labels"], row["aliases"]) for row in rows}


def typed(text: str, directory: Path, environment: Mapping[str, str]) -> None:
    """One command of the page, which succeeds; `make` is not run, as `.venv` is that of the tests."""
    if text.startswith("make "):
        return
    done = subprocess.run(
        ["bash", "-c", text], cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_upgrade_keeps_what_is_live(project: Path) -> None:
    """Until the tables are migrated each command says how; after the commands of the page everything goes on."""
    environment = newcomer(project)
    for command in ("status", "doctor", "train iris"):
        done = hotswap(environment, *command.split(), directory=project)
        assert OUT_OF_DATE in " ".join((done.stdout + done.stderr).split())
    address = {"MLFLOW_BACKEND_STORE_URI": sqlite_address(project / ".hotswap" / "mlflow.db")}
    page = Piped({**environment, **address}, mlflow_page.main)
    assert OUT_OF_DATE in page.communicate()[1]
    assert page.returncode == 1
    try:
        for each in commands(PAGE):
            typed(each.text, project, environment)
        assert of_status(project, environment) == {
            2: ("AVAILABLE", ["stable"], ["champion"]),
            1: ("AVAILABLE", [], []),
        }
        typed(f".venv/bin/hotswap rollback {MODEL}", project, environment)
        assert of_status(project, environment)[1] == ("AVAILABLE", ["stable"], ["champion"])
        typed(".venv/bin/hotswap train iris", project, environment)
    finally:
        typed(".venv/bin/hotswap down", project, environment)
