"""``prefect.yaml``: the training as a deployment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from flows.parameters import DriftParameters, PromoteParameters, TrainParameters, description, types_of
from tests.processes import forked, run_prefect, without_settings

pytestmark = pytest.mark.xdist_group("deployment")  # one worker deploys

PROJECT = Path(__file__).parents[2]


def prefect(api_url: str, *arguments: str) -> None:
    environment = {**without_settings(), "PREFECT_API_URL": api_url}
    done = forked(environment, run_prefect, arguments, directory=PROJECT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def deployed(prefect_api: str) -> Callable[[str], dict[str, Any]]:
    """What a server has of a deployment, by its name, after ``prefect deploy --all`` in the project's root."""
    pool = {"name": "hotswap", "type": "process"}
    assert requests.post(f"{prefect_api}/work_pools/", json=pool, timeout=10).ok
    prefect(prefect_api, "deploy", "--all")

    def read(name: str) -> dict[str, Any]:
        found = requests.get(f"{prefect_api}/deployments/name/{name}", timeout=10)
        found.raise_for_status()
        document: dict[str, Any] = found.json()
        return document

    return read


def test_the_schedule_of_the_example_is_paused(deployed: Callable[[str], dict[str, Any]]) -> None:
    """It runs only once it is resumed, with the parameters of the file."""
    deployment = deployed("train-and-promote/train-iris")
    assert deployment["parameters"] == {"recipe": "iris", "seed": 42, "min_accuracy": 0.9}
    assert [(each["active"], each["schedule"]["cron"]) for each in deployment["schedules"]] == [(False, "0 6 * * 1")]
    assert deployment["global_concurrency_limit"]["limit"] == 1


@pytest.mark.parametrize(
    ("name", "entrypoint", "subject", "declared"),
    [
        ("train-and-promote/train", "flows.train_and_promote.train_and_promote", "recipe", TrainParameters),
        ("train-and-promote/train-iris", "flows.train_and_promote.train_and_promote", "recipe", TrainParameters),
        ("promote/promote", "flows.train_and_promote.promote", "recipe", PromoteParameters),
        ("drift/drift", "flows.check_drift.drift", "model", DriftParameters),
    ],
)
def test_a_deployment_takes_what_its_command_takes(
    name: str, entrypoint: str, subject: str, declared: Any, deployed: Callable[[str], dict[str, Any]]
) -> None:
    """Each parameter is there with its help, and the pool is that of the worker."""
    deployment = deployed(name)
    assert (deployment["entrypoint"], deployment["work_pool_name"]) == (entrypoint, "hotswap")
    properties = deployment["parameter_openapi_schema"]["properties"]
    assert list(properties) == [subject, *types_of(declared)]
    assert [
        each for each, hint in types_of(declared).items() if properties[each]["description"] != description(hint)
    ] == []
