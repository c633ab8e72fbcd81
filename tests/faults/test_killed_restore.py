"""A restore that is killed at any of its steps is begun again or finished by the next one, and nobody uses a half."""

from __future__ import annotations

import shutil
import sqlite3
import tarfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from flows.backups.archive import BackupError, extract
from flows.backups.backup import back_up
from flows.backups.restore import restore
from flows.machine.restoring import STAGING, discard, find_restoring
from flows.settings import Settings
from serving.repository.files import fsync_tree, write_atomically
from serving.repository.model_config import ModelEntry, render
from serving.repository.store import Repository
from tests.faults.points import Point, after, at, before, killed_at
from tests.processes import hotswap, without_settings

FILES = (
    *("home/artifacts/iris/1/file", "home/tallies.json", "models/iris/1/saved_model.pb"),
    *("models/.retired/iris/2/saved_model.pb", "models/.journal/iris.jsonl"),
)


@dataclass(frozen=True, slots=True)
class Project:
    """A home and a repository."""

    root: Path

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def environment(self) -> dict[str, str]:
        return {**without_settings(), "HOTSWAP_HOME": str(self.home), "HOTSWAP_MODELS_REPO": str(self.models)}

    def contents(self) -> dict[str, bytes]:
        """What every file has."""
        found = (path for place in (self.home, self.models) for path in place.rglob("*") if path.is_file())
        return {str(path.relative_to(self.root)): path.read_bytes() for path in found}


def write_databases(home: Path) -> None:
    for name in ("mlflow.db", "prefect/prefect.db"):
        (home / name).parent.mkdir(exist_ok=True)
        with closing(sqlite3.connect(home / name)) as connection, connection:
            for table in ("experiments", "runs", "logged_models", "model_versions"):
                columns = "artifact_location, artifact_uri, storage_location, source"
                connection.execute(f"CREATE TABLE {table} ({columns})")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A backup of a little of everything."""
    lived = Project(tmp_path / "lived")
    for name in FILES:
        path = lived.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    write_databases(lived.home)
    Repository(lived.models).write_config(render([ModelEntry("iris", str(lived.models / "iris"))]))
    back_up(Settings(home=lived.home, models_repo=lived.models), tmp_path / "backup.tar.gz")
    return tmp_path / "backup.tar.gz"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A new one, in which Prefect has been started."""
    project = Project(tmp_path / "project")
    (project.home / "prefect").mkdir(parents=True)
    return project


@pytest.fixture
def whole(file: Path, project: Project) -> dict[str, bytes]:
    """What the project has once all is restored."""
    restore(file, project.home, project.models)
    contents = project.contents()
    shutil.rmtree(project.root)
    (project.home / "prefect").mkdir(parents=True)
    return contents


NOTHING_IN_PLACE = {
    "nothing written": before(tarfile.TarFile.extractfile),
    "half written": after(tarfile.TarFile.extractfile, 3),
    "verified": after(extract),
    "on disk": after(fsync_tree, 2),
    "one record": after(write_atomically),
}
TO_BE_FINISHED = {
    "both records": after(write_atomically, 2),
    "one model moved": after(Path.replace, 3),
    "models moved": before(discard, 3),
    "home begun": after(Path.replace, 5),
    "Prefect's directory gone": before(Path.replace, 7),
    "all moved": before(discard, 4),
}


@pytest.mark.parametrize("point", NOTHING_IN_PLACE.values(), ids=NOTHING_IN_PLACE)
def test_a_restore_that_is_killed_before_all_is_verified_is_begun_again(
    point: Point, file: Path, project: Project, whole: dict[str, bytes]
) -> None:
    """Nothing is in its place before, and nothing of it is left after the next one."""
    killed_at(point, restore, file, project.home, project.models)
    assert {path.name for place in (project.home, project.models) for path in place.iterdir()} <= {"prefect", STAGING}
    assert find_restoring(project.home, project.models) is None
    restore(file, project.home, project.models)
    assert project.contents() == whole


@pytest.mark.parametrize("point", TO_BE_FINISHED.values(), ids=TO_BE_FINISHED)
def test_a_restore_that_is_killed_later_is_finished_by_the_next_one(
    point: Point, file: Path, project: Project, whole: dict[str, bytes]
) -> None:
    """Until then no command takes what is there for all of it."""
    killed_at(point, restore, file, project.home, project.models)
    refused = hotswap(project.environment, "status")
    assert refused.returncode == 1
    assert "was interrupted: run the same `hotswap restore` again" in " ".join(refused.stderr.split())
    done = hotswap(project.environment, "restore", str(file))
    assert done.returncode == 0, done.stderr
    assert "Models: iris" in " ".join(done.stdout.split())
    assert project.contents() == whole


def test_a_restore_that_fails_later_is_finished_by_the_next_one(
    file: Path, project: Project, whole: dict[str, bytes]
) -> None:
    """Also where nobody killed it, as with Ctrl-C: what is not in its place yet is not removed."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), at(before(Path.replace, 5), interrupt):
        restore(file, project.home, project.models)
    restore(file, project.home, project.models)
    assert project.contents() == whole


@pytest.mark.parametrize("other", ["backup", "home", "models"])
def test_another_restore_leaves_an_interrupted_one_alone(
    other: str, file: Path, project: Project, whole: dict[str, bytes], tmp_path: Path
) -> None:
    """Of another backup, or to another home or repository: the first has to be finished, and can be."""
    killed_at(before(Path.replace, 3), restore, file, project.home, project.models)
    before_it = project.contents()
    another = tmp_path / "another.tar.gz"
    another.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(BackupError, match="finish it first"):
        restore(
            another if other == "backup" else file,
            tmp_path / "elsewhere" if other == "home" else project.home,
            tmp_path / "elsewhere" if other == "models" else project.models,
        )
    assert project.contents() == before_it
    assert not (tmp_path / "elsewhere").exists()
    restore(file, project.home, project.models)
    assert project.contents() == whole


def test_an_interrupted_restore_overwrites_nothing_that_came_meanwhile(file: Path, project: Project) -> None:
    """Another program has made a database there."""
    killed_at(before(discard, 3), restore, file, project.home, project.models)
    (project.home / "mlflow.db").write_text("new")
    with pytest.raises(BackupError, match=r"has mlflow\.db already"):
        restore(file, project.home, project.models)
    assert (project.home / "mlflow.db").read_text() == "new"


@pytest.mark.parametrize("point", [after(extract), before(Path.replace, 3)], ids=["writing", "moving"])
def test_two_restores_at_once_do_not_mix(point: Point, file: Path, project: Project, whole: dict[str, bytes]) -> None:
    """The second is refused while the first runs."""

    def restore_too() -> None:
        with pytest.raises(BackupError, match=r"Another restore .* is running"):
            restore(file, project.home, project.models)

    with at(point, restore_too):
        restore(file, project.home, project.models)
    assert project.contents() == whole


def test_a_backup_has_nothing_of_a_killed_restore(file: Path, project: Project, tmp_path: Path) -> None:
    """It was given up for a new home, which has its own files since."""
    killed_at(after(extract), restore, file, project.home, project.models)
    (project.home / "own").write_text("own")
    back_up(Settings(home=project.home, models_repo=project.models), tmp_path / "next.tar.gz")
    with tarfile.open(tmp_path / "next.tar.gz") as tar:
        assert tar.getnames() == ["home/own", "manifest.json"]
