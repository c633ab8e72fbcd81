"""A server in a process of its own, that may be made to suffer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from serving.cli import main
from tests.conformance.cases import MODELS, read_setups
from tests.processes import Piped

PROJECT = Path(__file__).parents[2]
_PORTS = ("--ephemeral_ports", "--ports_file=-")


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """``python -m serving``; it is ready."""

    process: psutil.Process
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
def server_process(root: Path, *flags: str, first: Callable[[], object] | None = None) -> Iterator[ServerProcess]:
    """A server, whose process begins with `first`; the block ends it, and it must not have ended before."""
    log = root / "server.log"
    process = Piped(os.environ, _serve, log, [*_PORTS, *flags], first)
    try:
        ports = json.loads(process.stdout.readline() or "{}")
        assert ports, log.read_text()
        yield ServerProcess(psutil.Process(process.pid), ports["grpc_port"], ports["rest_port"], log)
        assert process.returncode is None, log.read_text()
    finally:
        process.kill()
        process.communicate()


def _serve(log: Path, flags: Sequence[str], first: Callable[[], object] | None) -> None:
    with log.open("wb") as errors:
        os.dup2(errors.fileno(), sys.stderr.fileno())
    if first is not None:
        first()
    sys.exit(main(flags))


@contextmanager
def server_program(
    root: Path, *flags: str, environment: Mapping[str, str] | None = None, wrapper: Sequence[str] = ()
) -> Iterator[ServerProcess]:
    """The same as a program of its own, started by the command `wrapper`."""
    log = root / "server.log"
    command = [*wrapper, sys.executable, "-m", "serving", *_PORTS, *flags]
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
