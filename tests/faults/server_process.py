"""A server in a process of its own, that may be made to suffer."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.conformance.cases import MODELS, read_setups

PROJECT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """``python -m serving``; it is ready."""

    process: psutil.Popen
    grpc_port: int
    rest_port: int
    log: Path

    def url(self, model: str) -> str:
        """The address of a model over REST."""
        return f"http://127.0.0.1:{self.rest_port}/v1/models/{model}"

    def resident_mb(self) -> float:
        """The memory that it holds."""
        return float(self.process.memory_info().rss / 2**20)

    def complaints(self) -> list[str]:
        """What it has logged about errors that it did not expect."""
        return [line for line in self.log.read_text("utf-8", "replace").splitlines() if "Traceback" in line]


@contextmanager
def server_process(
    root: Path, *flags: str, environment: Mapping[str, str] | None = None, wrapper: Sequence[str] = ()
) -> Iterator[ServerProcess]:
    """A server, started by the command `wrapper`, that is killed when the block ends; it must not have ended before."""
    log = root / "server.log"
    command = [*wrapper, sys.executable, "-m", "serving", "--ephemeral_ports", "--ports_file=-", *flags]
    with log.open("wb") as errors:
        process = psutil.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=errors, env=environment)
    try:
        ports = json.loads(process.stdout.readline() or "{}")
        assert ports, log.read_text()
        yield ServerProcess(process, ports["grpc_port"], ports["rest_port"], log)
        assert process.poll() is None, log.read_text()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def recorded_models(root: Path) -> list[str]:
    """The flags for the models of the recorded cases, without the one that runs for minutes."""
    setup = read_setups()["main"]
    config = root / "models.config"
    lines = setup["config"].replace("{models}", str(MODELS)).splitlines()
    config.write_text("\n".join(line for line in lines if "'slow'" not in line))
    return [f"--model_config_file={config}", *setup["flags"]]
