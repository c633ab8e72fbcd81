"""A command finds its state from a subdirectory too, and never takes somebody else's for it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from flows.cli import run
from flows.home import home_named
from flows.settings import InvalidSettings, load_settings
from tests.ports import free_ports


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Only the defaults, and a user whose home directory is elsewhere."""
    for name in ("HOTSWAP_HOME", "HOTSWAP_MODELS_REPO", "MLFLOW_TRACKING_URI", "PREFECT_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    for name, port in zip(("HOTSWAP_REST_PORT", "HOTSWAP_GRPC_PORT"), free_ports(2), strict=True):
        monkeypatch.setenv(name, str(port))


def found(directory: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The home and the repository of a command in this directory."""
    directory.mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(directory)
    settings = load_settings()
    assert home_named(os.environ).absolute() == settings.home.absolute()
    return settings.home.absolute(), settings.models_repo.absolute()


def state_of(directory: Path) -> tuple[Path, Path]:
    return directory / ".hotswap", directory / "models_repo"


@pytest.mark.parametrize("marker", [".hotswap", "models_repo"])
def test_the_nearest_directory_upwards_with_state_is_used(
    marker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Home and repository are both there, whichever of them there is."""
    outer, inner = tmp_path / "outer", tmp_path / "outer" / "inner"
    (outer / marker).mkdir(parents=True)
    assert found(inner / "src" / "deep", monkeypatch) == state_of(outer)
    (inner / marker).mkdir()
    assert found(inner / "src" / "deep", monkeypatch) == state_of(inner)
    assert found(outer / "src", monkeypatch) == found(outer, monkeypatch) == state_of(outer)


def test_without_any_the_current_directory_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of that name is no state."""
    (tmp_path / ".hotswap").write_text("")
    assert found(tmp_path / "new", monkeypatch) == state_of(tmp_path / "new")


def test_what_is_set_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative to the current directory; what is not set is taken from the directory that was found."""
    (tmp_path / "project" / ".hotswap").mkdir(parents=True)
    monkeypatch.setenv("HOTSWAP_MODELS_REPO", "models")
    below = tmp_path / "project" / "src"
    assert found(below, monkeypatch) == (tmp_path / "project" / ".hotswap", below / "models")
    monkeypatch.setenv("HOTSWAP_HOME", str(tmp_path / "elsewhere"))
    assert found(below, monkeypatch) == (tmp_path / "elsewhere", below / "models")


def test_state_in_the_users_home_directory_is_not_found_from_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor what is above it; in that directory itself it is used as ever."""
    user = tmp_path / "user"
    for directory in (user, tmp_path):
        (directory / ".hotswap").mkdir(parents=True)
    assert found(user / "work", monkeypatch) == state_of(user / "work")
    assert found(user, monkeypatch) == state_of(user)


def test_state_where_everybody_may_write_is_not_found_from_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody could have put it there, as in /tmp."""
    shared = tmp_path / "shared"
    (shared / ".hotswap").mkdir(parents=True)
    shared.chmod(0o1777)
    assert found(shared / "work", monkeypatch) == state_of(shared / "work")


def test_a_current_directory_that_is_gone_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence with the next step."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    shutil.rmtree(gone)
    with pytest.raises(InvalidSettings, match="current directory"):
        load_settings()


def test_status_begins_with_home_repository_and_servers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In words and in JSON, from a subdirectory too."""
    (tmp_path / "project" / "models_repo").mkdir(parents=True)
    home, repository = found(tmp_path / "project" / "src", monkeypatch)
    assert run(["status"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["home", str(home)]
    assert lines[1].split() == ["repository", str(repository)]
    assert lines[2].startswith(f"server      No server runs at http://127.0.0.1:{os.environ['HOTSWAP_REST_PORT']}")
    assert run(["status", "--json"]) == 0
    reported = json.loads(capsys.readouterr().out)
    assert (reported["home"], reported["repository"]) == (str(home), str(repository))
    assert [server["rest"] for server in reported["servers"]] == [f"http://127.0.0.1:{os.environ['HOTSWAP_REST_PORT']}"]
