"""MLflow is found and read as MLflow itself does it, and what cannot be read is not taken for gone."""

from __future__ import annotations

import base64
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import mlflow
import pytest
import requests

from flows.reconciliation.findings import find
from flows.reconciliation.repair import repair
from flows.registry import mlflow_access
from flows.registry.mlflow_registry import Registry
from flows.registry.reader import RegistryUnread, RegistryView, read_registry, read_run_tags, read_version_tags
from flows.reports.doctor import examine
from tests.faults.points import counted
from tests.flows.registry.databases import another_database_with_such_a_model, another_database_with_tables
from tests.pipelines import Pipeline

SERVED = pytest.mark.xdist_group("mlflow-server")


@pytest.fixture(params=["file", pytest.param("server", marks=SERVED)])
def how(offline: Pipeline, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database is read as a file, or over MLflow's server; the client of `offline` stays at the file."""
    if request.param == "server":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", request.getfixturevalue("mlflow_url"))


@pytest.mark.usefixtures("how")
def test_both_ways_tell_what_mlflow_has(offline: Pipeline) -> None:
    """Aliases, versions without the deleted ones, tags of versions and runs."""
    versions = [offline.register(1) for _ in range(3)]
    first, second, third = (each.version for each in versions)
    offline.registry.set_alias(offline.model, "challenger", first)
    offline.registry.set_alias(offline.model, "champion", third)
    offline.registry._client.delete_model_version(offline.model, str(second))
    view = read_registry(offline.model)
    assert view.aliases == {"challenger": first, "champion": third}
    assert view.runs == {first: offline.run.id, third: offline.run.id}
    tags = read_version_tags(offline.model, third)
    assert tags == {"hotswap.digest": versions[2].digest, "hotswap.promotion": "registered"}
    offline.run.tag({"gate": "passed"})
    assert read_run_tags(offline.run.id)["hotswap.gate"] == "passed"


def test_an_unchanged_database_is_looked_at_once(offline: Pipeline) -> None:
    """Which tables it has, and of which release, is asked again when its file has changed."""
    read_registry(offline.model)
    with counted(mlflow_access._read_tables) as looks:
        read_registry(offline.model)
        assert looks == []
        offline.register(1)
        read_registry(offline.model)
        assert len(looks) == 1


@pytest.mark.usefixtures("how")
def test_what_mlflow_does_not_know_is_empty(offline: Pipeline) -> None:
    """No error for a model, a version or a run that nobody has registered."""
    assert read_registry("nobody") == RegistryView()
    assert read_version_tags("nobody", 1) == {}
    assert read_run_tags("0" * 32) == {}


@pytest.mark.parametrize("uri", ["http://127.0.0.1:1", "sqlite:///{home}/other.db"])
def test_what_cannot_be_read_is_reported(
    uri: str, offline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence for a server that is down and for a file that is no database."""
    (tmp_path / "other.db").write_text("this is no database at all")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.format(home=tmp_path))
    with pytest.raises(RegistryUnread, match="cannot be read"):
        read_registry(offline.model)


def test_a_query_in_a_sqlite_address_is_not_part_of_the_file(
    offline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``sqlite:////path?timeout=30`` is read as MLflow reads it, and no file of that literal name appears."""
    version = offline.promote(1)
    address = f"{os.environ['MLFLOW_TRACKING_URI']}?timeout=30"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    assert read_registry(offline.model).aliases == {"champion": version}
    assert find(offline.deployment) == []
    assert Registry(tmp_path / "artifacts").aliases(offline.model) == {"champion": version}
    assert not list(Path(address.removeprefix("sqlite:///")).parent.glob("*timeout*"))


def test_a_relative_sqlite_address_counts_from_the_working_directory(
    offline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it does for MLflow."""
    version = offline.promote(1)
    home = Path(os.environ["MLFLOW_TRACKING_URI"].removeprefix("sqlite:///")).parent
    monkeypatch.chdir(home)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    assert read_registry(offline.model).aliases == {"champion": version}


def test_the_registry_may_have_an_address_of_its_own(
    offline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``MLFLOW_REGISTRY_URI`` is where versions and aliases are read; runs stay at the tracking address."""
    version = offline.promote(1)
    offline.run.tag({"gate": "passed"})
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", os.environ["MLFLOW_TRACKING_URI"])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/runs.db")
    assert read_registry(offline.model).aliases == {"champion": version}
    assert read_run_tags(offline.run.id) == {}
    assert not (tmp_path / "runs.db").exists()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", os.environ["MLFLOW_REGISTRY_URI"])
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", f"sqlite:///{tmp_path}/registry.db")
    assert read_registry(offline.model) == RegistryView()
    assert read_run_tags(offline.run.id)["hotswap.gate"] == "passed"


def test_a_directory_of_files_can_be_the_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``file:`` addresses are MLflow's oldest, and honoured where MLflow is told to honour them."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    with pytest.raises(RegistryUnread, match="MLFLOW_ALLOW_FILE_STORE=true"):
        read_registry("old")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    client = mlflow.MlflowClient()
    client.create_registered_model("old")
    client.create_model_version("old", str(tmp_path), run_id=None)
    client.set_registered_model_alias("old", "champion", "1")
    assert _read_soon("old") == RegistryView({"champion": 1}, {1: ""}, known=True)


class Guarded(ThreadingHTTPServer):
    """MLflow behind somebody who wants to know who asks; whoever does not say so gets 401."""

    def __init__(self, behind: str) -> None:
        super().__init__(("127.0.0.1", 0), _Guard)
        self.behind = behind
        self.accepted = ""
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Guard(BaseHTTPRequestHandler):
    server: Guarded

    def do_GET(self) -> None:
        if self.headers.get("Authorization") != self.server.accepted:
            return self._answer(401, b"You are not authenticated.")
        answer = requests.get(self.server.behind + self.path, timeout=30)
        return self._answer(answer.status_code, answer.content)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def guarded(mlflow_url: str) -> Iterator[Guarded]:
    with Guarded(mlflow_url) as server:
        yield server
        server.shutdown()


def by_password(home: Path) -> dict[str, str]:
    return {"MLFLOW_TRACKING_USERNAME": "ada", "MLFLOW_TRACKING_PASSWORD": "love-lace"}


def by_token(home: Path) -> dict[str, str]:
    return {"MLFLOW_TRACKING_TOKEN": "0123456789"}


def by_file(home: Path) -> dict[str, str]:
    (home / ".mlflow").mkdir()
    text = "[mlflow]\nmlflow_tracking_username = ada\nmlflow_tracking_password = love-lace\n"
    (home / ".mlflow" / "credentials").write_text(text)
    return {}


def by_address(home: Path) -> dict[str, str]:
    return {"MLFLOW_TRACKING_URI": os.environ["MLFLOW_TRACKING_URI"].replace("://", "://ada:love-lace@")}


def _read_soon(model: str) -> RegistryView:
    """What is read as soon as an earlier failure is no longer remembered."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return read_registry(model)
        except RegistryUnread:
            assert time.monotonic() < deadline
            time.sleep(0.05)


BASIC = f"Basic {base64.b64encode(b'ada:love-lace').decode()}"


@SERVED
@pytest.mark.parametrize(
    ("credentials", "accepted"),
    [(by_password, BASIC), (by_token, "Bearer 0123456789"), (by_file, BASIC), (by_address, BASIC)],
)
def test_credentials_are_those_that_mlflow_takes(
    credentials: Callable[[Path], dict[str, str]],
    accepted: str,
    offline: Pipeline,
    guarded: Guarded,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without them nothing is found out and nothing advised but to give them; with them everything is read."""
    version = offline.promote(1)
    guarded.accepted = accepted
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", guarded.url)
    (finding,) = find(offline.deployment)
    assert "cannot be read (it does not accept the credentials, status 401)" in finding.what
    assert "MLFLOW_TRACKING_USERNAME" in finding.what
    assert not finding.repairable
    for name, value in credentials(tmp_path).items():
        monkeypatch.setenv(name, value)
    assert _read_soon(offline.model).aliases == {"champion": version}
    assert find(offline.deployment) == []


def another_database(offline: Pipeline, directory: Path) -> str:
    return f"sqlite:///{directory}/another.db"


def damaged_file(offline: Pipeline, directory: Path) -> str:
    (directory / "another.db").write_text("this is no database at all")
    return f"sqlite:///{directory}/another.db"


def older_tables(offline: Pipeline, directory: Path) -> str:
    return _with_revision(offline, directory, "a8c4a736bde6")


def newer_tables(offline: Pipeline, directory: Path) -> str:
    return _with_revision(offline, directory, "ffffffffffff")


def _with_revision(offline: Pipeline, directory: Path, revision: str) -> str:
    address = another_database_with_tables(offline, directory)
    with closing(sqlite3.connect(directory / "another.db")) as file, file:
        file.execute("UPDATE alembic_version SET version_num = ?", (revision,))
    return address


def nobody(offline: Pipeline, directory: Path) -> str:
    return "http://127.0.0.1:1"


def database_without_driver(offline: Pipeline, directory: Path) -> str:
    return "mysql+pymysql://ada:love-lace@127.0.0.1:1/mlflow"


def no_address(offline: Pipeline, directory: Path) -> str:
    return "postgresql:/what"


ELSEWHERE: tuple[tuple[Callable[[Pipeline, Path], str], str], ...] = (
    (another_database, "does not know the model"),
    (another_database_with_tables, "does not know the model"),
    (another_database_with_such_a_model, "is MLFLOW_TRACKING_URI the right one"),
    (damaged_file, "the file is damaged, or no database"),
    (older_tables, "run `mlflow db upgrade sqlite://"),
    (newer_tables, "install the release of MLflow that made them"),
    (nobody, "nobody answers there"),
    (database_without_driver, "`pip install pymysql`"),
    (no_address, "MLFLOW_TRACKING_URI"),
)


def test_what_is_read_elsewhere_or_not_at_all_is_not_taken_for_lost(
    offline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One finding asks for the address; nothing is advised that takes a version away, and no label moves."""
    offline.promote(1)
    offline.promote(2)
    before, journal = offline.live(), offline.journal.path.read_bytes()
    here = os.environ["MLFLOW_TRACKING_URI"]
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for elsewhere, told in ELSEWHERE:
        directory = tmp_path / elsewhere.__name__
        directory.mkdir()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", elsewhere(offline, directory))
        assert_not_taken_for_lost(offline, told)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", here)
        assert (offline.live(), offline.journal.path.read_bytes()) == (before, journal)


def assert_not_taken_for_lost(offline: Pipeline, told: str) -> None:
    """A look at the registry of now finds one thing, and a repair changes nothing."""
    (finding,) = find(offline.deployment)
    assert told in finding.what
    assert "love-lace" not in finding.what
    assert "retire" not in finding.what + finding.next_step
    assert repair(offline.deployment).repaired == ()
    assert all("retire" not in each.next_step for each in examine(offline.settings))


def test_a_look_makes_no_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a file nor a directory appears where there is no MLflow yet."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/none/mlflow.db")
    assert read_registry("iris") == RegistryView()
    assert list(tmp_path.iterdir()) == []
