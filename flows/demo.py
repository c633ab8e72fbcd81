"""
Does the whole way work, from data to live traffic and back?

``make demo`` runs this: real commands, a real server on ports of the kernel's choice, and a client that never stops
asking while versions are swapped. Each step prints what it has proved; the first one that fails ends the program.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clients import GrpcClient, PredictClient, RestClient
from flows.settings import Settings, load_settings
from flows.stack import server_flags
from serving.errors import HotswapError, ServingError
from serving.repository import Repository

MODEL = "iris"
ROW = [[5.1, 3.5, 1.4, 0.2]]

_START_SECONDS = 60.0
_STOP_SECONDS = 20.0


class DemoFailed(HotswapError):
    """Something that should hold does not."""


def main() -> int:
    """The exit code."""
    started = time.perf_counter()
    try:
        with _model_server(load_settings()) as settings:
            _run(settings)
    except HotswapError as exc:
        print(f"demo: {exc}", file=sys.stderr)
        return 1
    settings = load_settings()
    _say(
        f"All of this took {time.perf_counter() - started:.0f} s. To look at the runs, start everything by "
        f"`.venv/bin/hotswap up`: the MLflow page is http://{settings.host}:{settings.mlflow_port}, the Prefect page "
        f"http://{settings.host}:{settings.prefect_port}."
    )
    return 0


def _run(settings: Settings) -> None:
    with RestClient(settings.rest_url) as rest, GrpcClient(settings.grpc_target) as grpc:
        first = _train(seed=1)
        _check_published(settings, first)
        _check_addressing([rest, grpc], first["version"])
        second = _swap_under_load(settings, [rest, grpc])
        _roll_back([rest, grpc], first["version"], second)
    _say("5. What there is now:")
    _hotswap("status", MODEL, shown=True)


def _train(seed: int) -> dict[str, Any]:
    outcome: dict[str, Any] = json.loads(_hotswap("train", MODEL, "--seed", str(seed), "--json"))
    return outcome


def _check_published(settings: Settings, outcome: dict[str, Any]) -> None:
    version, metrics = outcome["version"], outcome["metrics"]
    _prove(version in Repository(settings.models_repo).versions(MODEL), f"version {version} is not published")
    _say(
        f"1. Iris is version {version}: trained with Keras, exported, and the exported SavedModel has "
        f"{metrics['test_accuracy']:.1%} of {metrics['test_rows']:.0f} held-out rows right, which passes the gate. "
        f"It is MLflow run {outcome['run_id']}, and registered under the same number."
    )


def _check_addressing(clients: Sequence[PredictClient], version: int) -> None:
    for client in clients:
        for how in ({"version": version}, {"label": "stable"}, {}):
            answered = client.predict(MODEL, ROW, **how).version
            _prove(answered == version, f"asked by {how or 'nothing'}, version {answered} answers, not {version}")
    _say(
        f"2. The server answers for version {version} over REST and gRPC: by number, by label `stable`, and by neither."
    )


def _swap_under_load(settings: Settings, clients: Sequence[PredictClient]) -> int:
    with _asking(settings) as load:
        outcome = _train(seed=2)
        version: int = outcome["version"]
        renamed = Repository(settings.models_repo).base_path(MODEL).stat().st_mtime
        _prove(load.wait_for(version), f"version {version} was published, but does not answer")
    _prove(not load.errors, f"{len(load.errors)} requests failed, the first with: {load.errors[:1]}")
    for client in clients:
        for number in (version - 1, version):
            answered = client.predict(MODEL, ROW, version=number).version
            _prove(answered == number, f"asked for version {number}, version {answered} answers")
    swap_milliseconds, slowest_milliseconds = (load.first_answer[version] - renamed) * 1000, load.slowest * 1000
    _say(
        f"3. Version {version} went live while {load.count} requests came over both protocols: none failed, the first "
        f"answer of it came {swap_milliseconds:.0f} ms after its directory appeared, and the slowest of all took "
        f"{slowest_milliseconds:.0f} ms. Versions {version - 1} and {version} both answer by number."
    )
    return version


def _roll_back(clients: Sequence[PredictClient], version: int, removed: int) -> None:
    change = json.loads(_hotswap("rollback", MODEL, "--json"))
    _prove(change["version"] == version, f"rolled back to version {change['version']}, not {version}")
    for client in clients:
        for how in ({}, {"label": "stable"}):
            answered = client.predict(MODEL, ROW, **how).version  # type: ignore[arg-type]
            _prove(answered == version, f"after the rollback version {answered} answers, not {version}")
    rows = {row["version"]: row for row in json.loads(_hotswap("status", MODEL, "--json"))}
    _prove(
        (rows[version]["labels"], rows[version]["aliases"]) == (["stable"], ["champion"]),
        f"label and alias disagree: {rows[version]}",
    )
    _prove(rows[removed]["state"] == "RETIRED", f"version {removed} is {rows[removed]['state']}")
    _say(
        f"4. Rolled back: version {removed} is removed, the next answer came from version {version}, and the label "
        "`stable`, the alias `champion` and the registry agree."
    )


class _Load:
    """Clients that ask without a pause, and what became of it."""

    def __init__(self, clients: Sequence[PredictClient]) -> None:
        self.count = 0
        self.slowest = 0.0
        self.errors: list[str] = []
        self.first_answer: dict[int, float] = {}
        self._changed = threading.Condition()
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(client,)) for client in clients]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, version: int) -> bool:
        """Whether this version has answered before too long."""
        with self._changed:
            return self._changed.wait_for(lambda: version in self.first_answer, _START_SECONDS)

    def _ask(self, client: PredictClient) -> None:
        # A short pause between requests leaves the processor to the training.
        while not self._stopped.wait(0.002):
            started = time.perf_counter()
            try:
                version = client.predict(MODEL, ROW).version
            except ServingError as exc:
                with self._changed:
                    self.errors.append(str(exc))
                continue
            with self._changed:
                self.count += 1
                self.slowest = max(self.slowest, time.perf_counter() - started)
                if version is not None:
                    self.first_answer.setdefault(version, time.time())
                self._changed.notify_all()


@contextmanager
def _asking(settings: Settings) -> Iterator[_Load]:
    with RestClient(settings.rest_url) as rest, GrpcClient(settings.grpc_target) as grpc:
        load = _Load([rest, grpc])
        load.start()
        try:
            yield load
        finally:
            load.stop()


@contextmanager
def _model_server(settings: Settings) -> Iterator[Settings]:
    """A server of its own process; yields the settings with its ports, which the commands see too."""
    log_path = settings.home.absolute() / "logs" / "demo-model-server.log"
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="hotswap-") as directory, log_path.open("w") as log:
        ports_file = Path(directory) / "ports.json"
        flags = [*server_flags(settings), "--ephemeral_ports", f"--ports_file={ports_file}"]
        server = subprocess.Popen(
            [sys.executable, "-m", "serving", *flags], stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
        try:
            ports = _ports(server, ports_file, log_path)
            os.environ["HOTSWAP_REST_PORT"] = str(ports["rest_port"])
            os.environ["HOTSWAP_GRPC_PORT"] = str(ports["grpc_port"])
            yield load_settings()
        finally:
            server.terminate()
            try:
                server.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _ports(server: subprocess.Popen[bytes], ports_file: Path, log_path: Path) -> dict[str, int]:
    deadline = time.monotonic() + _START_SECONDS
    while not ports_file.exists():
        if server.poll() is not None or time.monotonic() > deadline:
            raise DemoFailed(f"the model server did not start: see {log_path}")
        time.sleep(0.05)
    ports: dict[str, int] = json.loads(ports_file.read_text())
    return ports


def _hotswap(*arguments: str, shown: bool = False) -> str:
    """Run a command as a user does; its standard output."""
    print(f"$ hotswap {' '.join(arguments)}", flush=True)
    command = [sys.executable, "-m", "flows.cli", *arguments]
    done = subprocess.run(command, stdout=None if shown else subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise DemoFailed(f"`hotswap {' '.join(arguments)}` ended with exit code {done.returncode}")
    return done.stdout or ""


def _prove(holds: bool, otherwise: str) -> None:
    if not holds:
        raise DemoFailed(otherwise)


def _say(text: str) -> None:
    print(f"\n{textwrap.fill(text, 100)}\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
