"""``make demo``: the main job, as a newcomer runs it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import sqlite3
import subprocess
import sys
from contextlib import ExitStack, closing
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
import requests

from serving.repository.store import Repository
from tests.docs.pages import README, blocks, masked
from tests.processes import hotswap
from tests.waiting import until


def demo(python: str, directory: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run it in a directory of its own, where neither Prefect nor MLflow runs yet."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HOTSWAP_", "MLFLOW_", "PREFECT_"))}
    return subprocess.run(
        [python, "-m", "flows.demo"],
        env={**kept, "PYTHONPATH": str(Path.cwd()), "HOTSWAP_PREFECT_PORT": "1", **settings},
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def processes_of(home: Path) -> list[psutil.Process]:
    """The processes that know this home."""
    found = []
    for process in psutil.process_iter(["environ"], ad_value={}):
        if process.info["environ"].get("HOTSWAP_HOME") == str(home):
            found.append(process)
    return found


@pytest.mark.timeout(400)
def test_the_demo_proves_the_whole_way(python: str, tmp_path: Path, soak: bool) -> None:
    """All points are proved in a directory of the demo's own, nothing else changes, and its runs can be looked at."""
    (tmp_path / "models_repo" / "iris" / "7").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    mine = {"HOTSWAP_HOME": str(tmp_path / "mine"), "MLFLOW_TRACKING_URI": "http://127.0.0.1:1"}
    done = demo(python, tmp_path, **mine)
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    for sentence in (
        "1. Iris is version 1",
        "2. The server answers for version 1 over REST and gRPC",
        ">= 0.9000 rejected",
        "3. A training that was stopped too early did not pass the gate, exit code 3: version 1 stays live",
        "4. Version 2 went live",
        "none failed",
        "5. Rolled back: version 2 is removed, the next answer came from version 1",
        "6. Version 2 was restored and went live again",
        "7. What there is now",
        "nothing of yours was touched",
    ):
        assert sentence in text
    for paragraph in blocks(README, "text")[0].split("\n\n"):
        assert masked(paragraph) in masked(text)
    assert all(len(line) <= 80 or line.startswith("$ ") for line in (done.stdout + done.stderr).splitlines())
    milliseconds = re.search(r"came (-?\d+) ms after its directory appeared", text)
    assert milliseconds is not None
    assert int(milliseconds[1]) >= 0
    commands = [line for line in done.stdout.splitlines() if line.startswith("$ ")][-2:]
    directory = Path(commands[0].removeprefix("$ cd "))
    until(lambda: not processes_of(directory / ".hotswap"), 10)
    repository = Repository(directory / "models_repo")
    assert (repository.versions("iris"), repository.retired("iris")) == ([1], [])
    assert sorted(tmp_path.rglob("*")) == before
    check_the_runs_are_kept(python, commands, directory)
    if soak:
        check_the_runs_can_be_looked_at(commands)
    shutil.rmtree(directory)


def check_the_runs_are_kept(python: str, printed: list[str], directory: Path) -> None:
    """Where the printed commands lead, the registry has the live model, and the database of Prefect each flow run."""
    (_, directory_there), (_, *words) = (shlex.split(command.removeprefix("$ ")) for command in printed)
    unset = [name for option, name in pairwise(words) if option == "-u"]
    assert words[-2:] == [str(Path(python).with_name("hotswap")), "up"]
    users = {**os.environ, "MLFLOW_TRACKING_URI": "http://127.0.0.1:1", "HOTSWAP_HOME": "/proc/nowhere"}
    environment = {name: value for name, value in users.items() if name not in unset}
    shown = hotswap(environment, "status", "iris", "--json", directory=Path(directory_there))
    live = [row["version"] for row in json.loads(shown.stdout)["versions"] if row["aliases"] == ["champion"]]
    assert live == [1], shown.stderr
    with closing(sqlite3.connect(directory / ".hotswap" / "prefect" / "prefect.db")) as database:
        assert database.execute("SELECT count(*) FROM flow_run").fetchone()[0] >= 3


def check_the_runs_can_be_looked_at(printed: list[str]) -> None:
    """The printed commands bring up MLflow with the registered model and Prefect with the flow runs."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(4)]
        ports = [str(probe.getsockname()[1]) for probe in probes]
    names = [f"HOTSWAP_{name}_PORT" for name in ("REST", "GRPC", "MLFLOW", "PREFECT")]
    go, start = (command.removeprefix("$ ") for command in printed)
    users = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "PREFECT_"))}
    running = subprocess.Popen(
        ["/bin/sh", "-c", f"{go} && exec {start} --json"],
        env={
            **users,
            **dict(zip(names, ports, strict=True)),
            "HOTSWAP_HOME": "/proc/nowhere",
            "HOTSWAP_WORKER": "false",
        },
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert running.stdout is not None
        addresses = json.loads(running.stdout.readline())
        registered = requests.get(
            f"{addresses['mlflow']}/api/2.0/mlflow/registered-models/get", params={"name": "iris"}, timeout=30
        )
        assert registered.json()["registered_model"]["name"] == "iris"
        assert requests.post(f"{addresses['prefect']}/api/flow_runs/count", json={}, timeout=30).json() >= 3
    finally:
        running.terminate()
        running.communicate(timeout=60)


def test_a_demo_that_cannot_run_says_why(tmp_path: Path) -> None:
    """One sentence on standard error and exit code 1."""
    done = demo(sys.executable, tmp_path, HOTSWAP_REST_PORT="eighty")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("demo: ")
    assert done.stderr.count("\n") == 1
