"""``prefect.yaml``: the training as a deployment."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import requests

from tests.processes import without_settings

PROJECT = Path(__file__).parents[2]


def prefect(api_url: str, *arguments: str) -> None:
    command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
    environment = {**without_settings(), "PREFECT_API_URL": api_url}
    done = subprocess.run(
        command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_server_accepts_the_deployment_with_its_schedule_paused(prefect_api: str) -> None:
    """``prefect deploy --all`` makes a deployment whose schedule runs only once it is resumed."""
    pool = {"name": "hotswap", "type": "process"}
    assert requests.post(f"{prefect_api}/work_pools/", json=pool, timeout=10).ok
    prefect(prefect_api, "deploy", "--all")
    address = f"{prefect_api}/deployments/name/train-and-promote/train-iris"
    with urllib.request.urlopen(address, timeout=10) as answer:
        deployment = json.load(answer)
    assert deployment["entrypoint"] == "flows.train_and_promote.train_and_promote"
    assert deployment["parameters"] == {"recipe": "iris", "seed": 42, "min_accuracy": 0.9}
    assert [(each["active"], each["schedule"]["cron"]) for each in deployment["schedules"]] == [(False, "0 6 * * 1")]
