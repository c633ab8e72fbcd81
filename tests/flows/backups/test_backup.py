"""What is backed up while everything runs comes back whole, here or elsewhere, after whatever was lost."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from flows.registry.mlflow_registry import Registry
from flows.settings import Settings
from serving.repository.store import Repository
from tests.conftest import at_home
from tests.pipelines import Pipeline
from tests.processes import hotswap, running, without_settings

pytestmark = pytest.mark.xdist_group("backups")

NO_SERVER = "no model server runs"


@dataclass
class Place:
    """A project: its directory, and the environment of a shell in it."""

    directory: Path
    environment: dict[str, str]

    @property
    def home(self) -> Path:
        return self.directory / ".hotswap"

    @property
    def models(self) -> Path:
        return self.directory / "models_repo"

    @property
    def settings(self) -> dict[str, str]:
        return {**self.environment, "HOTSWAP_HOME": str(self.home), "HOTSWAP_MODELS_REPO": str(self.models)}

    def run(self, *arguments: str, **variables: str) -> str:
        """One command; what it prints."""
        done = hotswap({**self.settings, **variables}, *arguments, directory=self.directory)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def promote(self, kind: int, tiny_model: Any, scratch: Path) -> None:
        """Make a tiny model the next version of iris, by the parts that a training puts together."""
        settings = Settings(home=self.home, models_repo=self.models, rest_port=1, grpc_port=2)
        with at_home(self.home):
            Pipeline(settings, Registry(self.home / "artifacts"), "iris", tiny_model, scratch, kept={}).promote(kind)

    def rows(self) -> dict[int, dict[str, Any]]:
        """What `hotswap status` says of each version."""
        return {row["version"]: row for row in json.loads(self.run("status", "--json"))["versions"]}

    def labels(self) -> dict[int, list[str]]:
        """The labels of each published version."""
        rows = self.rows()
        return {version: rows[version]["labels"] for version in Repository(self.models).versions("iris")}

    def problems(self) -> list[str]:
        """What `hotswap doctor` finds besides that nothing is served."""
        found = json.loads(hotswap(self.settings, "doctor", "--json", directory=self.directory).stdout)
        return [each["what"] for each in found if NO_SERVER not in each["what"]]

    def artifacts(self) -> list[Path]:
        """Where MLflow's database says that the artifacts of models are."""
        with closing(sqlite3.connect(self.home / "mlflow.db")) as connection:
            found = connection.execute("SELECT storage_location FROM model_versions").fetchall()
        return [Path(unquote(urlsplit(address).path)) for (address,) in found]


@pytest.fixture(scope="module")
def environment(prefect_api: str, forked_sandbox: Path) -> dict[str, str]:
    """Of a shell on a machine where no model server runs, with the Prefect server of the tests."""
    ports = {f"HOTSWAP_{name}_PORT": str(port) for port, name in enumerate(("REST", "GRPC", "MLFLOW", "PREFECT"), 1)}
    others = {"PREFECT_API_URL": prefect_api, "HOTSWAP_SANDBOX_SERVER": str(forked_sandbox)}
    return {**without_settings(), **ports, **others}


@pytest.fixture(scope="module")
def lived(
    environment: dict[str, str],
    furnish: Callable[[Path], None],
    tiny_model: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Place, Path, Path]:
    """
    A project whose version 1 was live when it was backed up, which trained version 2 meanwhile.

    Returns:
        The project, its backup, and a copy of its directory to begin again with.
    """
    place = Place(tmp_path_factory.mktemp("lived") / "pröject", environment)
    place.directory.mkdir()
    furnish(place.home)
    place.promote(1, tiny_model, tmp_path_factory.mktemp("scratch"))
    training = running(place.settings, "train", "iris", "--allow-breaking", directory=place.directory)
    backup = place.directory.parent / "backup.tar.gz"
    place.run("backup", str(backup))
    training.communicate()
    assert training.returncode == 0
    saved = place.directory.parent / "saved"
    shutil.copytree(place.directory, saved, symlinks=True)
    return place, backup, saved


@pytest.fixture
def project(lived: tuple[Place, Path, Path]) -> Iterator[Place]:
    """The same; what a test does to it is taken back."""
    place, _, saved = lived
    yield place
    shutil.rmtree(place.directory)
    shutil.copytree(saved, place.directory, symlinks=True)


def test_a_backup_is_restored_elsewhere_and_goes_on(
    project: Place, lived: tuple[Place, Path, Path], tiny_model: Any, tmp_path: Path
) -> None:
    """Made while a model trained, and restored where nothing of the old place is left: it promotes, and rolls back."""
    shutil.rmtree(project.directory)
    project.directory.mkdir()
    there = Place(tmp_path / "there", project.environment)
    restored = project.run("restore", str(lived[1]), "--to", str(there.directory))
    assert "Models: iris" in " ".join(restored.split())
    assert there.labels() == {1: ["stable"]}
    assert there.problems() == []
    assert [path for path in there.artifacts() if not path.is_dir() or not path.is_relative_to(there.directory)] == []
    assert str(project.directory) not in (there.models / "models.config").read_text()
    there.run("explain", "iris", "1")
    there.promote(3, tiny_model, tmp_path)
    newest = max(there.labels())
    assert there.labels() == {1: [], newest: ["stable"]}
    there.run("rollback", "iris")
    assert there.labels() == {1: ["stable"]}
    actions = [entry["action"] for entry in json.loads(there.run("history", "iris", "--json"))]
    assert actions.count("promote") == actions.count("publish") == 2
    assert "rollback" in actions
    assert there.problems() == []


@pytest.mark.parametrize("lost", ["home", pytest.param("registry", marks=pytest.mark.soak)])
def test_a_lost_home_comes_back_from_the_backup(
    lost: str, project: Place, lived: tuple[Place, Path, Path], tmp_path: Path
) -> None:
    """What was live then is live again; what was published since is registered again, and can be labelled."""
    if lost == "registry":
        (project.home / "mlflow.db").unlink()
        project.home.rename(tmp_path / "what was left")
    else:
        shutil.rmtree(project.home)
    project.run("restore", str(lived[1]), HOTSWAP_MODELS_REPO=str(tmp_path / "unused"))
    project.run("reconcile")
    assert project.labels() == {1: ["stable"], 2: []}
    project.run("label", "iris", "stable", "2")
    assert project.labels() == {1: [], 2: ["stable"]}
    assert project.problems() == []


def test_a_lost_repository_comes_back_from_the_backup(
    project: Place, lived: tuple[Place, Path, Path], tmp_path: Path
) -> None:
    """What was published since is promoted again from its run, under a number that was never used."""
    trained = project.rows()[2]["run_id"]
    shutil.rmtree(project.models)
    project.run("restore", str(lived[1]), HOTSWAP_HOME=str(tmp_path / "unused"))
    project.run("reconcile")
    assert project.labels() == {1: ["stable"]}
    project.run("promote", "iris", "--run", trained, "--allow-breaking")
    assert project.labels() == {1: [], 3: ["stable"]}
    assert project.problems() == []
