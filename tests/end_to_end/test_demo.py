"""``make demo``: the main job, as a newcomer runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil


def test_the_demo_proves_the_whole_way(tmp_path: Path) -> None:
    """All five points are proved, the exit code is 0, and no process is left behind."""
    before = {process.pid for process in psutil.process_iter()}
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HOTSWAP_", "PREFECT_"))}
    done = subprocess.run(
        [sys.executable, "-m", "flows.demo"],
        env={**environment, "PYTHONPATH": str(Path.cwd())},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=220,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for told in (
        "1. Iris is version 1",
        "2. Version 1 answers over REST and gRPC",
        "3. Version 2 went live",
        "none failed",
        "4. Rolled back: version 2 is removed",
        "5. What there is now",
    ):
        assert told in done.stdout
    left = [
        each for each in psutil.process_iter(["cwd"]) if each.pid not in before and each.info["cwd"] == str(tmp_path)
    ]
    assert left == []
