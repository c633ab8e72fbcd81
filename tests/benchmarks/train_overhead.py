"""
How much longer does `hotswap train iris` take than a bare script that trains and exports the same model, and how much
of that is the proof?
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks.report import Measurement
from tests.ports import stack_ports

PROJECT = Path(__file__).parents[2]
MAX_REPEATS = 2.5
MAX_PROOF_SECONDS = 6.0
MAX_SECONDS_AFTER_PUBLISH = 1.5
MAX_WARM = 0.6
WARM_ROUNDS = 3
REHEARSAL_SECONDS = 10.0
"""so long the worker of the stack has nothing to do between two trainings"""


def measure() -> list[Measurement]:
    """Both in turn: without any state, and with the state that a training left."""
    with tempfile.TemporaryDirectory(prefix="hotswap-bench-") as directory:
        run_bare(Path(directory))  # fills the page cache
        bare = run_bare(Path(directory))
        first, _ = run_hotswap(Path(directory))
        second, steps = run_hotswap(Path(directory))
        with _stack(Path(directory)) as environment:
            warm = sorted(_warm(environment) for _ in range(WARM_ROUNDS))
    after_publish = steps["verify"] + steps["label"]
    proof = steps["gate"] + steps["sandbox"] + after_publish
    return [
        Measurement("bare script: import TensorFlow, train Iris, export", bare, "s"),
        Measurement("hotswap train iris, first training", first, "s"),
        Measurement("  first training, times the bare script", first / bare, "x", MAX_REPEATS),
        Measurement("hotswap train iris, second training", second, "s"),
        Measurement("  later trainings, times the bare script", second / bare, "x", MAX_REPEATS),
        Measurement("hotswap train iris, with the stack up", warm[len(warm) // 2], "s", besides=_between(warm, "s")),
        Measurement("  with the stack up, times the bare script", warm[len(warm) // 2] / bare, "x", MAX_WARM),
        Measurement("  gate, sandbox and verification of a training", proof, "s", MAX_PROOF_SECONDS),
        Measurement("  of that, after publish", after_publish, "s", MAX_SECONDS_AFTER_PUBLISH),
    ]


def run_bare(directory: Path) -> float:
    script = str(Path(__file__).with_name("bare_training.py"))
    return run([sys.executable, script, str(directory / "bare")], directory)[0]


def run_hotswap(directory: Path) -> tuple[float, dict[str, float]]:
    """Seconds, and those of each step."""
    seconds, output = run([sys.executable, "-m", "flows.cli", "train", "iris", "--json"], directory)
    return seconds, json.loads(output)["seconds"]


@contextmanager
def _stack(directory: Path) -> Iterator[dict[str, str]]:
    """`hotswap up`, whose worker is ready, during the block; the environment of its commands."""
    environment = _environment(directory) | stack_ports()
    command = [sys.executable, "-m", "flows.cli"]
    subprocess.run([*command, "up", "--detach"], check=True, cwd=PROJECT, env=environment, capture_output=True)
    try:
        while not (directory / "home" / "worker.sock").exists():
            time.sleep(0.1)
        yield environment
    finally:
        subprocess.run([*command, "down"], check=True, cwd=PROJECT, env=environment, capture_output=True)


def _warm(environment: dict[str, str]) -> float:
    """Seconds of a training that the worker carries out."""
    time.sleep(REHEARSAL_SECONDS)
    command = [sys.executable, "-m", "flows.cli", "train", "iris"]
    started = time.perf_counter()
    done = subprocess.run(command, check=True, cwd=PROJECT, env=environment, capture_output=True, text=True)
    assert "done here" not in done.stderr
    return time.perf_counter() - started


def _between(values: list[float], unit: str) -> str:
    return f"from {min(values):.3g} to {max(values):.3g} {unit} in {len(values)} rounds"


def _environment(directory: Path) -> dict[str, str]:
    unset = ("PREFECT_API_URL", "MLFLOW_TRACKING_URI")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    return environment | {
        "HOTSWAP_HOME": str(directory / "home"),
        "HOTSWAP_MODELS_REPO": str(directory / "models_repo"),
        "HOTSWAP_PREFECT_PORT": "1",  # nobody listens there: the training starts a server of its own
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }


def run(command: list[str], directory: Path, timeout: float = 300) -> tuple[float, str]:
    """Seconds and standard output of a command whose state is in `directory`."""
    environment = _environment(directory)
    started = time.perf_counter()
    done = subprocess.run(
        command, check=True, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=timeout
    )
    return time.perf_counter() - started, done.stdout
