"""How quickly do the command line and the server answer, and how much memory does a server take?"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from clients.rest_client import RestClient
from flows.dataset import load_dataset
from flows.recipes import find_recipe
from flows.training import export, fit
from tests.benchmarks.report import Measurement

PROJECT = Path(__file__).parents[2]
ROW = [[5.1, 3.5, 1.4, 0.2]]
TRIES = 5
SWAPS = 12
LONGEST_SECONDS = 30.0


def measure() -> list[Measurement]:
    """Start-up of commands, a server with one version of Iris, and swaps of it."""
    with tempfile.TemporaryDirectory(prefix="hotswap-bench-") as name:
        directory = Path(name)
        source = directory / "exported"
        _export_iris(source)
        base_path = directory / "iris"
        base_path.mkdir()
        shutil.copytree(source, base_path / "1")
        with _server(base_path) as (ports, start_seconds):
            memory = psutil.Process(ports["pid"]).memory_info().rss / 2**20
            environment = {"HOTSWAP_REST_PORT": str(ports["rest_port"])}
            row = ",".join(map(str, ROW[0]))
            predict = _command_seconds(["-m", "flows.cli", "predict", "iris", row], environment)
            swaps = _swap_seconds(base_path, source, ports["rest_port"])
    return [
        Measurement("hotswap --help", _command_seconds(["-m", "flows.cli", "--help"], {}), "s", 0.5),
        Measurement("import clients", _command_seconds(["-c", "import clients"], {}), "s", 0.5),
        Measurement(
            "import clients.rest_client, clients.grpc_client",
            _command_seconds(["-c", "import clients.rest_client, clients.grpc_client"], {}),
            "s",
        ),
        Measurement("hotswap predict, REST", predict, "s", 1.0),
        Measurement("server: process start to both ports open, one Iris version", start_seconds, "s"),
        Measurement("server: resident memory, idle, one Iris version", memory, "MB", 600),
        Measurement("rename to the first answer of the new version, median", statistics.median(swaps), "s", 0.5),
        Measurement("rename to the first answer of the new version, longest", max(swaps), "s", 0.5),
    ]


def _export_iris(target: Path) -> None:
    recipe = find_recipe("iris")
    dataset = load_dataset(recipe)
    export(fit(recipe, dataset, 1, 5, lambda epoch, metrics: None).model, dataset, "iris", target)


@contextmanager
def _server(base_path: Path) -> Iterator[tuple[dict[str, Any], float]]:
    ports_file = base_path.parent / "ports.json"
    command = [sys.executable, "-m", "serving", "--ephemeral_ports", f"--ports_file={ports_file}"]
    command += ["--model_name=iris", f"--model_base_path={base_path}"]
    started = time.perf_counter()
    with (base_path.parent / "server.log").open("w") as log:
        server = subprocess.Popen(command, cwd=PROJECT, stdout=log, stderr=log)
    try:
        while not ports_file.exists():
            if server.poll() is not None or time.perf_counter() - started > LONGEST_SECONDS:
                raise SystemExit((base_path.parent / "server.log").read_text())
            time.sleep(0.01)
        yield json.loads(ports_file.read_text()), time.perf_counter() - started
    finally:
        server.terminate()
        server.wait(LONGEST_SECONDS)


def _command_seconds(arguments: list[str], environment: dict[str, str]) -> float:
    """The median over a few runs."""
    times = []
    for _ in range(TRIES):
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, *arguments],
            check=True,
            cwd=PROJECT,
            env={**os.environ, **environment},
            capture_output=True,
            timeout=LONGEST_SECONDS,
        )
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def _swap_seconds(base_path: Path, source: Path, rest_port: int) -> list[float]:
    """From the rename of a complete version to the first answer of it, for several swaps."""
    seconds = []
    with RestClient(f"http://127.0.0.1:{rest_port}") as client:
        for version in range(2, 2 + SWAPS):
            staged = base_path.parent / f"staged-{version}"
            shutil.copytree(source, staged)
            renamed = time.perf_counter()
            staged.rename(base_path / str(version))
            while client.predict("iris", ROW).version != version:
                if time.perf_counter() - renamed > LONGEST_SECONDS:
                    raise SystemExit(f"version {version} never answered")
            seconds.append(time.perf_counter() - renamed)
    return seconds
