"""
How do the servers that are measured start and stop?

Every one is a process of its own on ports of the kernel's choice, and is ended when its block is left. All but
TensorFlow Serving, which has no flag for it, listen on 127.0.0.1 only.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
import psutil
import requests

from flows.recipes.finding import find_recipe
from flows.registry.mlflow_registry import Registry
from flows.training.dataset import load_dataset
from flows.training.export import export
from flows.training.fit import fit
from serving.repository.stamp import GoldenRows

PROJECT = Path(__file__).parents[2]
HOTSWAP, EMPTY, TENSORFLOW_SERVING, MLFLOW = "hotswap", "empty handler", "TensorFlow Serving", "mlflow models serve"
MAX_START_SECONDS = 60.0
MAX_STOP_SECONDS = 30.0


class NotStarted(Exception):
    """A server did not start; the message is its log."""


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers, how long its start took, and where it is asked to predict."""

    name: str
    pid: int
    start_seconds: float
    rest_port: int
    grpc_port: int | None
    predict_path: str = "/v1/models/iris:predict"

    @property
    def rest_url(self) -> str:
        return f"http://127.0.0.1:{self.rest_port}"

    @property
    def memory(self) -> float:
        """Resident, in megabytes."""
        return float(psutil.Process(self.pid).memory_info().rss) / 2**20

    @property
    def processor_seconds(self) -> float:
        """Used by the process since it started."""
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)


def export_iris(target: Path) -> None:
    """Train for a moment and export: what the model answers does not matter, its shape does."""
    recipe = find_recipe("iris")
    dataset = load_dataset(recipe)
    export(fit(recipe, dataset, 1, 5, lambda epoch, metrics: None).model, dataset, "iris", target)


@contextmanager
def hotswap(directory: Path, *flags: str) -> Iterator[Running]:
    """Our server; `directory` gets its log and the file with its ports."""
    ports_file = directory / "ports.json"
    ports_file.unlink(missing_ok=True)  # of an earlier server
    command = [sys.executable, "-m", "serving", "--ephemeral_ports", f"--ports_file={ports_file}", *flags]
    with _process(command, directory / "hotswap.log", ports_file.exists) as (_, seconds):
        ports = json.loads(ports_file.read_text())
        yield Running(HOTSWAP, ports["pid"], seconds, ports["rest_port"], ports["grpc_port"])


def hotswap_iris(directory: Path, base_path: Path) -> AbstractContextManager[Running]:
    """Our server with the versions at `base_path`."""
    return hotswap(directory, "--model_name=iris", f"--model_base_path={base_path}")


@contextmanager
def empty_handlers(directory: Path) -> Iterator[Running]:
    """What our server's transports can do at most: handlers that answer without looking at the request."""
    ports_file = directory / "empty_ports.json"
    command = [sys.executable, "-m", "tests.benchmarks.empty_handlers", str(ports_file)]
    with _process(command, directory / "empty.log", ports_file.exists) as (process, seconds):
        ports = json.loads(ports_file.read_text())
        yield Running(EMPTY, process.pid, seconds, ports["rest_port"], ports["grpc_port"])


@contextmanager
def tensorflow_serving(binary: str, directory: Path, base_path: Path) -> Iterator[Running]:
    """The real one, with the flags that everybody starts it with."""
    grpc_port, rest_port = free_port(), free_port()
    command = [binary, f"--port={grpc_port}", f"--rest_api_port={rest_port}"]
    command += ["--model_name=iris", f"--model_base_path={base_path}"]
    status = f"http://127.0.0.1:{rest_port}/v1/models/iris"
    log = directory / "tensorflow_serving.log"
    with _process(command, log, lambda: "AVAILABLE" in _page(status)) as (process, seconds):
        yield Running(TENSORFLOW_SERVING, process.pid, seconds, rest_port, grpc_port)


@contextmanager
def mlflow_models_serve(directory: Path, saved_model: Path) -> Iterator[Running]:
    """The same SavedModel as `flows` registers it, behind ``mlflow models serve``."""
    tracking_uri = f"sqlite:///{directory / 'mlflow.db'}"
    model_uri = _log_model(tracking_uri, directory, saved_model)
    port = free_port()
    bin_directory = Path(sys.executable).parent  # it starts `uvicorn` by its bare name
    command = [str(bin_directory / "mlflow"), "models", "serve", "--model-uri", model_uri]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    environment = {"MLFLOW_TRACKING_URI": tracking_uri, "PATH": f"{bin_directory}:{os.environ['PATH']}"}
    ping = f"http://127.0.0.1:{port}/ping"
    with _process(command, directory / "mlflow.log", lambda: bool(_page(ping)), environment) as (process, seconds):
        yield Running(MLFLOW, process.pid, seconds, port, None, "/invocations")


def free_port() -> int:
    """A port that nobody listened on a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def _log_model(tracking_uri: str, directory: Path, saved_model: Path) -> str:
    mlflow.set_tracking_uri(tracking_uri)
    try:
        registry = Registry(directory / "artifacts")
        run = registry.start_run("iris", "benchmark", {}, {})
        golden = GoldenRows({"input": np.zeros((2, 4), np.float32)}, {"output": np.zeros((2, 3), np.float32)})
        model_uri = run.log_model(saved_model, golden)
        run.end("FINISHED")
    finally:
        mlflow.set_tracking_uri(None)  # what comes after this decides for itself
    return model_uri


def _page(url: str) -> str:
    """What is there; nothing where nobody answers yet."""
    with requests.Session() as session:
        session.trust_env = False  # a proxy for the internet does not lead here
        try:
            response = session.get(url, timeout=5)
        except requests.RequestException:
            return ""
    return response.text if response.ok else ""


@contextmanager
def _process(
    command: list[str], log: Path, is_ready: Callable[[], bool], environment: Mapping[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """Start, wait until ready, and in the end stop with every child; also how many seconds the start took."""
    started = time.perf_counter()
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=PROJECT, stdout=output, stderr=output, env={**os.environ, **(environment or {})}
        )
    try:
        while not is_ready():
            if process.poll() is not None or time.perf_counter() - started > MAX_START_SECONDS:
                raise NotStarted(f"{command[0]} did not start within {MAX_START_SECONDS:g} s:\n{log.read_text()}")
            time.sleep(0.005)
        yield process, time.perf_counter() - started
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    family = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    try:
        process.wait(MAX_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
    for child in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    process.wait()
