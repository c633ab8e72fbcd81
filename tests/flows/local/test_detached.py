"""``hotswap up --detach`` and ``hotswap down``."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import psutil
import pytest

from tests.docs.pages import DOCS, commands, isolated_environment
from tests.ports import PORTS, stack_ports
from tests.processes import hotswap

OFFSET = 7


@pytest.mark.slow
def test_detached_it_comes_back_once_everything_runs_until_down(tmp_path: Path) -> None:
    """The page's commands: the offset moves every port, the home's commands find them, and `down` ends all of it."""
    page = [shlex.split(each.text)[1:] for each in commands(DOCS / "how-to" / "stack.md")]
    assert page[:4] == [["up", "--detach"], ["status"], ["logs", "worker"], ["down"]]
    ports = {name: int(port) for name, port in stack_ports().items()}
    moved = {
        **isolated_environment(HOTSWAP_HOME=str(tmp_path / "home"), HOTSWAP_MODELS_REPO=str(tmp_path / "models")),
        **{name: str(port - OFFSET) for name, port in ports.items()},
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:1",
        "PREFECT_API_URL": "http://127.0.0.1:1/api",
    }
    begun = hotswap(moved, "up", "--detach", "--json", "--port-offset", str(OFFSET), directory=tmp_path)
    assert begun.returncode == 0, begun.stderr
    up = json.loads(begun.stdout)
    assert up["ports"] == {name: ports[name] for name in up["ports"]}
    try:
        unset = {name: value for name, value in moved.items() if name not in PORTS}
        status = json.loads(hotswap(unset, "status", "--json", directory=tmp_path).stdout)
        assert [(each["rest"], each["problem"]) for each in status["servers"]] == [(up["rest"], "")]
        states = {each["name"]: (each["state"], each["url"]) for each in status["services"]}
        assert states["model server"] == ("ready", up["rest"])
        again = hotswap(moved, "up", "--detach", "--port-offset", str(OFFSET), directory=tmp_path)
        assert again.returncode == 6
        assert "hotswap is up already" in again.stderr
    finally:
        ended = hotswap(unset, "down", "--json", directory=tmp_path)
    assert json.loads(ended.stdout)["stopped"]
    assert not any(map(psutil.pid_exists, [each["pid"] for each in status["services"]]))
    assert "Nothing was up" in hotswap(unset, "down", directory=tmp_path).stdout
    assert "services    none" in hotswap(unset, "status", directory=tmp_path).stdout
