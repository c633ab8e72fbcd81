"""The registry as it is read without MLflow is the one that MLflow has."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from flows.registry_reader import RegistryUnread, RegistryView, read_registry, read_run_tags, read_version_tags
from tests.flows.conftest import Pipeline


@pytest.fixture(scope="module")
def mlflow_server(mlflow_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The tests' database behind MLflow's own server."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{mlflow_home}/mlflow.db"]
    with (tmp_path_factory.mktemp("mlflow") / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--workers", "1", "--port", str(port)], stdout=log, stderr=log, start_new_session=True
        )
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 60
    try:
        while not _answers(url):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        return requests.get(f"{url}/health", timeout=5).ok
    except requests.RequestException:
        return False


@pytest.fixture(params=["file", "server"])
def how(offline: Pipeline, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database is read as a file, or over MLflow's server; the client of `offline` stays at the file."""
    if request.param == "server":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", request.getfixturevalue("mlflow_server"))


@pytest.mark.usefixtures("how")
def test_both_ways_tell_what_mlflow_has(offline: Pipeline) -> None:
    """Aliases, versions without the deleted ones, tags of versions and runs."""
    versions = [offline.register(1) for _ in range(3)]
    first, second, third = (each.version for each in versions)
    offline.registry.set_alias(offline.model, "challenger", first)
    offline.registry.set_alias(offline.model, "champion", third)
    offline.registry._client.delete_model_version(offline.model, str(second))
    view = read_registry(offline.settings, offline.model)
    assert view.aliases == {"challenger": first, "champion": third}
    assert view.runs == {first: offline.run_id, third: offline.run_id}
    tags = read_version_tags(offline.settings, offline.model, third)
    assert tags == {"hotswap.digest": versions[2].digest, "hotswap.promotion": "registered"}
    assert "hotswap.git_dirty" in read_run_tags(offline.settings, offline.run_id)


@pytest.mark.usefixtures("how")
def test_what_mlflow_does_not_know_is_empty(offline: Pipeline) -> None:
    """No error for a model, a version or a run that nobody has registered."""
    assert read_registry(offline.settings, "nobody") == RegistryView()
    assert read_version_tags(offline.settings, "nobody", 1) == {}
    assert read_run_tags(offline.settings, "0" * 32) == {}


@pytest.mark.parametrize("uri", ["http://127.0.0.1:1", "sqlite:///{home}/other.db"])
def test_what_cannot_be_read_is_told(
    uri: str, offline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence for a server that is down and for a file that is no database."""
    (tmp_path / "other.db").write_text("this is no database at all")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.format(home=tmp_path))
    with pytest.raises(RegistryUnread, match="cannot be read"):
        read_registry(offline.settings, offline.model)
