"""
An upgrade by the commands of the page: a home and a repository that earlier releases left go on.

In the short form `hotswap up` starts the model server and Prefect alone, and nothing is trained afterwards.
"""

from __future__ import annotations

import json
import os
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
from tests.docs.shell import Shell
from tests.docs.test_tutorial import newcomer
from tests.earlier import older_mlflow, older_prefect, older_repository
from tests.pipelines import Pipeline
from tests.processes import PYTHON, Piped, hotswap

PAGE = DOCS / "how-to" / "upgrade.md"
MODEL = "tiny"
WITHOUT_MLFLOW = {
    "MLFLOW_TRACKING_URI": "http://127.0.0.1:1",
    "HOTSWAP_RECONCILE_SECONDS": "0",
    "HOTSWAP_WORKER": "false",
}
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


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_upgrade_keeps_what_is_live(project: Path, prefect_api: str, python: str, soak: bool) -> None:
    """Until the tables are migrated each command says how; after the commands of the page everything goes on."""
    environment = newcomer(project)
    shell = Shell(project, environment, up={PYTHON: python, **({} if soak else WITHOUT_MLFLOW)})
    for refused in ("status", "doctor", "train iris"):
        done = hotswap({**environment, "PREFECT_API_URL": prefect_api}, *refused.split(), directory=project)
        assert OUT_OF_DATE in " ".join((done.stdout + done.stderr).split())
    address = {"MLFLOW_BACKEND_STORE_URI": sqlite_address(project / ".hotswap" / "mlflow.db")}
    page = Piped({**environment, **address}, mlflow_page.main, ())
    assert OUT_OF_DATE in page.communicate()[1]
    assert page.returncode == 1
    try:
        for command in commands(PAGE):
            shell.run(command)
        assert of_status(project, environment) == {
            2: ("AVAILABLE", ["stable"], ["champion"]),
            1: ("AVAILABLE", [], []),
        }
        assert shell.hotswap("rollback", MODEL).returncode == 0
        assert of_status(project, environment)[1] == ("AVAILABLE", ["stable"], ["champion"])
        if soak:
            assert shell.hotswap("train", "iris").returncode == 0
    finally:
        shell.hotswap("down")
