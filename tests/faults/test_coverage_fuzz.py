"""No request, however it was come by, is read in a way that is not foreseen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
RUNS = 1_000
SOAK_SECONDS = 300
LAST_LINES = 40
TARGETS = 3


def test_what_reads_requests_is_led_astray_by_none(tmp_path: Path, soak: bool) -> None:
    """Requests that are made to reach every line that reads them are read in each way alike, or refused by each."""
    pytest.importorskip("atheris", reason="atheris comes for Linux on x86-64 only")
    extent = [f"-max_total_time={SOAK_SECONDS}"] if soak else [f"-runs={RUNS}", "-seed=1"]
    command = [sys.executable, "-m", "tests.faults.coverage_fuzz", str(tmp_path), "-timeout=10", *extent]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        command, cwd=PROJECT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    assert done.returncode == 0, "\n".join(lines[-LAST_LINES:])
    assert len([line for line in lines if line.startswith("Done ")]) == TARGETS, "\n".join(lines[-LAST_LINES:])
