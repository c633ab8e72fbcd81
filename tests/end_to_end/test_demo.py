"""``make demo``: the main job, as a newcomer runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil

from serving.repository import Repository


def demo(directory: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run it in a directory of its own, where neither Prefect nor MLflow runs yet."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HOTSWAP_", "MLFLOW_", "PREFECT_"))}
    return subprocess.run(
        [sys.executable, "-m", "flows.demo"],
        env={**kept, "PYTHONPATH": str(Path.cwd()), "HOTSWAP_PREFECT_PORT": "1", **settings},
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=220,
        check=False,
    )


def processes_of(home: Path) -> list[psutil.Process]:
    """The processes that know this home."""
    found = []
    for process in psutil.process_iter(["environ"], ad_value={}):
        if process.info["environ"].get("HOTSWAP_HOME") == str(home):
            found.append(process)
    return found


def test_the_demo_proves_the_whole_way(tmp_path: Path) -> None:
    """All points are proved, the exit code is 0, the versions stay, and no process is left behind."""
    done = demo(tmp_path)
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    for told in (
        "1. Iris is version 1",
        "2. The server answers for version 1 over REST and gRPC",
        ">= 0.9000 rejected",
        "3. A training that was stopped too early did not pass the gate, exit code 3: version 1 stays live",
        "4. Version 2 went live",
        "none failed",
        "5. Rolled back: version 2 is removed, the next answer came from version 1",
        "6. Version 2 was restored and went live again",
        "7. What there is now",
        "hotswap up",
    ):
        assert told in text
    assert processes_of(tmp_path / ".hotswap") == []
    repository = Repository(tmp_path / "models_repo")
    assert (repository.versions("iris"), repository.retired("iris")) == ([1], [])


def test_a_demo_that_cannot_run_says_why(tmp_path: Path) -> None:
    """One sentence on standard error and exit code 1."""
    (tmp_path / "occupied").write_text("not a directory")
    done = demo(tmp_path, HOTSWAP_MODELS_REPO="occupied")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("demo: ")
    assert done.stderr.count("\n") == 1
