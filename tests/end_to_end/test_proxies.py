"""With a proxy in the environment that leads nowhere, everything on this machine works as without it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.promotion.labels import Labels
from serving.repository.store import Repository
from tests.ports import stack_ports
from tests.processes import behind_a_dead_proxy, without_settings


@pytest.fixture
def behind_a_proxy(furnish: Callable[[Path], None], tmp_path: Path) -> dict[str, str]:
    """An environment with a home and ports of the test's own, and a proxy where nobody listens."""
    furnish(tmp_path / "home")
    paths = {"HOTSWAP_HOME": str(tmp_path / "home"), "HOTSWAP_MODELS_REPO": str(tmp_path / "models")}
    return behind_a_dead_proxy({**without_settings(), **stack_ports(), **paths})


def hotswap(environment: dict[str, str], *arguments: str) -> Any:
    """What a command that succeeds prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments, "--json"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def up(behind_a_proxy: dict[str, str], tiny_model: Any, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """What ``hotswap up`` says once everything answers."""
    tiny_model(tmp_path / "models" / "tiny", 3)
    Labels(Repository(tmp_path / "models"), "tiny").write({})
    command = [sys.executable, "-m", "flows.cli", "up", "--json"]
    with subprocess.Popen(command, env=behind_a_proxy, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())
        finally:
            process.send_signal(signal.SIGTERM)


def test_everything_is_up_and_answers(up: dict[str, Any], behind_a_proxy: dict[str, str]) -> None:
    """Model server, MLflow and Prefect are seen to answer; status and predict reach the model server."""
    assert up["rest"].endswith(behind_a_proxy["HOTSWAP_REST_PORT"])
    for protocol in ([], ["--grpc"]):
        answer = hotswap(behind_a_proxy, "predict", "tiny", "1,2,3,4", *protocol)
        assert answer["outputs"] == {"output": [[13.0, 103.0, 1003.0]]}
    over_mlflow = {**behind_a_proxy, "MLFLOW_TRACKING_URI": up["mlflow"]}
    (row,) = hotswap(over_mlflow, "status")["versions"]
    assert (row["version"], row["state"]) == (3, "AVAILABLE")
    assert not any("MLflow" in what for what in row["drift"])
