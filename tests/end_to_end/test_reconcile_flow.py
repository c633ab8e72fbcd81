"""A reconcile turn beside a Prefect server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from flows.local.reconciler import Reconciler
from flows.settings import apply_environment, load_settings
from tests.processes import Piped, without_settings


def two_turns() -> None:
    """Print what each has repaired."""
    apply_environment(load_settings())
    reconciler = Reconciler(load_settings())
    print(json.dumps([reconciler.turn() for _ in range(2)]))


def flow_runs(prefect_api: str, model: str) -> list[tuple[str, str]]:
    """Name and state of the newest flow runs about a model; other tests have theirs at the same server."""
    newest = {"sort": "START_TIME_DESC", "limit": 100}
    runs = requests.post(f"{prefect_api}/flow_runs/filter", json=newest, timeout=10).json()
    return [(run["name"], run["state_name"]) for run in runs if model in run["parameters"].values()]


def turns_beside(tmp_path: Path, **prefect: str) -> list[list[str]]:
    """What each of two turns in a process of their own has repaired, which find Prefect by these settings."""
    paths = {"HOTSWAP_HOME": str(tmp_path), "HOTSWAP_MODELS_REPO": str(tmp_path / "models")}
    ports = {"HOTSWAP_REST_PORT": "1", "HOTSWAP_GRPC_PORT": "2"}
    process = Piped({**without_settings(), **paths, **ports, **prefect}, two_turns)
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    turns: list[list[str]] = json.loads(output.splitlines()[-1])
    return turns


def test_only_a_turn_that_repairs_is_a_flow_run(prefect_api: str, tmp_path: Path, tiny_model: Any) -> None:
    """The repair of a directory that came by hand is shown by Prefect; the turn after that leaves no trace."""
    tiny_model(tmp_path / "models" / "tiny-by-hand", 3)
    assert turns_beside(tmp_path, PREFECT_API_URL=prefect_api) == [["tiny-by-hand"], []]
    assert flow_runs(prefect_api, "tiny-by-hand") == [("reconcile", "Completed")]


def test_a_server_that_is_found_after_prefect_was_imported_has_the_flow_run(
    prefect_api: str, tmp_path: Path, tiny_model: Any
) -> None:
    """As in the operator, which knows the port alone; each process of the tests has Prefect imported from the start."""
    tiny_model(tmp_path / "models" / "tiny-found-late", 3)
    turns = turns_beside(tmp_path, HOTSWAP_PREFECT_PORT=str(urlsplit(prefect_api).port))
    assert turns == [["tiny-found-late"], []]
    assert flow_runs(prefect_api, "tiny-found-late") == [("reconcile", "Completed")]
