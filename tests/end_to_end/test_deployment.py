"""``prefect.yaml``: the training as a deployment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.orchestration.prefect_server import TemporaryPrefect
from flows.settings import Settings, apply_environment

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def prefect_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TemporaryPrefect]:
    """A Prefect server with an empty database."""
    before = dict(os.environ)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    settings = Settings(home=tmp_path)
    apply_environment(settings)
    server = TemporaryPrefect(settings)
    server.wait()
    yield server
    server.stop()
    os.environ.clear()
    os.environ.update(before)


def prefect(*arguments: str) -> None:
    command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_server_accepts_the_deployment_with_its_schedule_paused(prefect_server: TemporaryPrefect) -> None:
    """``prefect deploy --all`` makes one deployment of the flow, whose schedule runs only once it is resumed."""
    prefect("work-pool", "create", "hotswap", "--type", "process")
    prefect("deploy", "--all")
    address = f"{prefect_server.api_url}/deployments/name/train-and-promote/train-iris"
    with urllib.request.urlopen(address, timeout=10) as answer:
        deployment = json.load(answer)
    assert deployment["entrypoint"] == "flows/train_and_promote.py:train_and_promote"
    assert deployment["parameters"] == {"recipe": "iris", "seed": 42, "min_accuracy": 0.9}
    assert [(each["active"], each["schedule"]["cron"]) for each in deployment["schedules"]] == [(False, "0 6 * * 1")]
