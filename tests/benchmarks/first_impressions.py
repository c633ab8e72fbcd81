"""How quickly do the command line and the server answer, and how much memory does a server take?"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from clients.rest_client import RestClient
from tests.benchmarks import servers
from tests.benchmarks.report import Measurement
from tests.benchmarks.servers import PROJECT
from tests.benchmarks.versions import ROW, put, swap

TRIES = 5
SWAPS = 12
TIMEOUT_SECONDS = 30.0


def measure() -> list[Measurement]:
    """Start-up of commands, a server with one version of Iris, and swaps of it."""
    with tempfile.TemporaryDirectory(prefix="hotswap-bench-") as name:
        directory = Path(name)
        source, base_path = directory / "exported", directory / "iris"
        servers.export_iris(source)
        put(source, base_path, 1)
        with servers.hotswap_iris(directory, base_path) as server:
            memory = server.memory
            row = ",".join(map(str, ROW[0]))
            environment = {"HOTSWAP_REST_PORT": str(server.rest_port)}
            predict = _command_seconds(["-m", "flows.cli", "predict", "iris", row], environment)
            with RestClient(server.rest_url) as client:
                swaps = [swap(client, source, base_path, version) for version in range(2, 2 + SWAPS)]
    return [
        Measurement("hotswap --help", _command_seconds(["-m", "flows.cli", "--help"], {}), "s", 0.5),
        Measurement("import clients", _command_seconds(["-c", "import clients"], {}), "s", 0.5),
        Measurement(
            "import clients.rest_client, clients.grpc_client",
            _command_seconds(["-c", "import clients.rest_client, clients.grpc_client"], {}),
            "s",
        ),
        Measurement("hotswap predict, REST", predict, "s", 1.0),
        Measurement("server: process start to both ports open, one Iris version", server.start_seconds, "s", 3.0),
        Measurement("server: resident memory, idle, one Iris version", memory, "MB", 600),
        Measurement("rename to the first answer of the new version, median", statistics.median(swaps), "s", 0.3),
        Measurement("rename to the first answer of the new version, longest", max(swaps), "s", 0.5),
    ]


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
            timeout=TIMEOUT_SECONDS,
        )
        times.append(time.perf_counter() - started)
    return statistics.median(times)
