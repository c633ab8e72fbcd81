"""A reconcile turn beside a Prefect server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import requests

from flows.orchestration.prefect_server import TemporaryPrefect
from tests.end_to_end.test_deployment import PROJECT, prefect_server

__all__ = ["prefect_server"]

# Prefect reads PREFECT_API_URL once in a process, so the turns have one of their own.
TURNS = """
import json
from flows.local.reconciler import Reconciler
from flows.settings import apply_environment, load_settings
apply_environment(load_settings())
reconciler = Reconciler(load_settings())
print(json.dumps([reconciler.turn() for _ in range(2)]))
"""


def test_only_a_turn_that_repairs_is_a_flow_run(
    prefect_server: TemporaryPrefect, tmp_path: Path, tiny_model: Any
) -> None:
    """The repair of a directory that came by hand is shown by Prefect; the turn after that leaves no trace."""
    paths = {"HOTSWAP_HOME": str(tmp_path), "HOTSWAP_MODELS_REPO": str(tmp_path / "models")}
    database = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
    ports = {"HOTSWAP_REST_PORT": "1", "HOTSWAP_GRPC_PORT": "2"}
    tiny_model(tmp_path / "models" / "tiny", 3)
    done = subprocess.run(
        [sys.executable, "-c", TURNS],
        cwd=PROJECT,
        env={**os.environ, **paths, **database, **ports},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [["tiny"], []]
    runs = requests.post(f"{prefect_server.api_url}/flow_runs/filter", json={}, timeout=10).json()
    assert [(run["name"], run["state_name"]) for run in runs] == [("reconcile", "Completed")]
