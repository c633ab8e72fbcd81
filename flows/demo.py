"""
Demonstrates the whole way from data to live traffic and back.

``make demo`` runs this: real commands, a real server on ports that the kernel chooses, and clients that never stop
asking while versions are swapped. Each step prints what it has proved; the first one that fails ends the program.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shlex
import shutil
import signal
import socket
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from clients import PredictClient
from flows.console.terminal import console, width
from flows.endpoints.connections import grpc_client, rest_client
from flows.gate.checks import Check
from flows.local.load import under_load
from flows.local.stack import STABLE_BY_DEFAULT, server_flags
from flows.machine.processes import Process, stop
from flows.machine.workspaces import temporary_directory
from flows.orchestration.prefect_server import find_prefect
from flows.promotion.labels import STABLE
from flows.reports.tables import gate_table
from flows.settings import Settings, apply_environment, load_settings, prepare_home
from serving.protocol.errors import HotswapError
from serving.repository.store import Repository

MODEL = "iris"
ROW = [[5.1, 3.5, 1.4, 0.2]]

_START_SECONDS = 60.0
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["flows.worker.preloaded"])  # so that three trainings import everything once
EXIT_INTERRUPTED = 130


class DemoFailed(HotswapError):
    """Something does not hold that the demo is to prove."""


def main() -> int:
    """The exit code."""
    started = time.perf_counter()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        users = load_settings()
        directory = _fresh_directory()
        set_aside = _set_aside_environment(directory)
        with _servers(load_settings()) as running:
            _run(running)
    except HotswapError as exc:
        print(f"demo: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted; nothing of yours was touched", file=sys.stderr)
        return EXIT_INTERRUPTED
    _say(
        f"All of this took {time.perf_counter() - started:.0f} s, and nothing of yours was touched. To look at the "
        f"runs, start everything there; the MLflow page is then http://{users.url_host}:{users.mlflow_port}, the "
        f"Prefect page http://{users.url_host}:{users.prefect_port}:"
    )
    print(f"\n{_look_commands(directory, set_aside)}", flush=True)
    return 0


def _fresh_directory() -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix="hotswap-demo-"))
    except OSError as exc:
        raise DemoFailed(
            f"a temporary directory cannot be made ({exc}): set TMPDIR to one that can be written"
        ) from exc


def _set_aside_environment(directory: Path) -> list[str]:
    """
    Let this process and all that it starts work in `directory` alone, whatever the user has set.

    Returns:
        The variables of the user that would lead elsewhere.
    """
    foreign = sorted(name for name in os.environ if name.startswith(("HOTSWAP_", "MLFLOW_", "PREFECT_")))
    for name in foreign:
        del os.environ[name]
    os.environ["HOTSWAP_HOME"] = str(directory / ".hotswap")
    os.environ["HOTSWAP_MODELS_REPO"] = str(directory / "models_repo")
    # Nobody listens there, so a Prefect server of its own is started.
    with socket.create_server(("127.0.0.1", 0)) as unused:
        os.environ["HOTSWAP_PREFECT_PORT"] = str(unused.getsockname()[1])
    return [name for name in foreign if not name.endswith("_PORT")]


def _look_commands(directory: Path, set_aside: Sequence[str]) -> str:
    """The commands that show the runs of the demo, a line each."""
    without = ["env", *(word for name in set_aside for word in ("-u", name))] if set_aside else []
    up = Path(sys.executable).with_name("hotswap")
    command = [str(up)] if up.exists() else [sys.executable, "-m", "flows.cli"]
    return f"$ cd {shlex.quote(str(directory))}\n$ {shlex.join([*without, *command, 'up'])}"


def _run(settings: Settings) -> None:
    with rest_client(settings) as rest, grpc_client(settings) as grpc:
        first = _hotswap("train", MODEL, "--seed", "1")
        _check_published(settings, first)
        _check_addressing([rest, grpc], first["version"])
        _reject(settings, [rest, grpc], first["version"])
        second = _swap_under_load(settings, [rest, grpc], first["version"])
        _roll_back([rest, grpc], first["version"], second)
        _remove_by_hand(settings, [rest, grpc], first["version"], second)
    _show_versions()


def _hotswap(*arguments: str, expected: int = 0) -> Any:
    """Do as a user does, with the progress shown; what the command prints as JSON."""
    print(f"\n$ hotswap {' '.join(arguments)}", flush=True)
    return json.loads(_printed(*arguments, "--json", expected=expected))


def _printed(*arguments: str, expected: int = 0) -> str:
    output, printed = _FORKS.Pipe(duplex=False)
    command = _FORKS.Process(target=_run_command, args=(arguments, dict(os.environ), printed), daemon=True)
    command.start()
    printed.close()
    with open(output.fileno(), encoding="utf-8", closefd=False) as text:
        said = text.read()
    output.close()
    command.join()
    _prove(command.exitcode == expected, f"{arguments[0]} ended with exit code {command.exitcode}, not {expected}")
    return said


def _run_command(arguments: Sequence[str], environment: dict[str, str], printed: Connection) -> None:
    """``hotswap …`` in a process that was forked for it."""
    from flows.cli import main as hotswap

    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update(environment)
    os.dup2(printed.fileno(), 1)
    printed.close()
    hotswap(arguments)


def _import_everything() -> None:
    """Let the first training begin at once: what it is forked from is started, and imports, now."""
    first = _FORKS.Process(target=int)
    first.start()
    first.join()


def _check_published(settings: Settings, outcome: dict[str, Any]) -> None:
    version, metrics = outcome["version"], outcome["metrics"]
    _prove(version in Repository(settings.models_repo).versions(MODEL), f"version {version} is not published")
    _say(
        f"1. Iris is version {version}: trained with Keras, exported, and the exported SavedModel has "
        f"{metrics['test_accuracy']:.1%} of {metrics['test_rows']:.0f} held-out rows right, which passes the gate. "
        f"It is MLflow run {outcome['run_id']}, and registered under the same number."
    )


def _check_answered(clients: Sequence[PredictClient], version: int) -> None:
    """Prove that `version` answers requests without a number, and those for `stable`."""
    for client in clients:
        for label in (None, "stable"):
            answered = client.predict(MODEL, ROW, label=label).version
            _prove(answered == version, f"version {answered} answers for label {label}, not {version}")


def _check_addressing(clients: Sequence[PredictClient], version: int) -> None:
    for client in clients:
        for how in ({"version": version}, {"label": "stable"}, {}):
            answered = client.predict(MODEL, ROW, **how).version
            _prove(answered == version, f"asked by {how or 'nothing'}, version {answered} answers, not {version}")
    _say(
        f"2. The server answers for version {version} over REST and gRPC: by number, by label `stable`, and by neither."
    )


def _reject(settings: Settings, clients: Sequence[PredictClient], live: int) -> None:
    published = Repository(settings.models_repo).versions(MODEL)
    outcome = _hotswap("train", MODEL, "--epochs", "1", expected=3)
    _prove(Repository(settings.models_repo).versions(MODEL) == published, "a rejected model was published")
    _check_answered(clients, live)
    console().print(gate_table([Check(**check) for check in outcome["checks"]], width()))
    _say(f"3. A training that was stopped too early did not pass the gate, exit code 3: version {live} stays live.")


def _swap_under_load(settings: Settings, clients: Sequence[PredictClient], before: int) -> int:
    with under_load(settings, MODEL, ROW) as load:
        outcome = _hotswap("train", MODEL, "--seed", "2")
        version: int = outcome["version"]
        _prove(load.wait_for(version), f"version {version} was published, but does not answer")
    _prove(not load.errors, f"{len(load.errors)} requests failed, the first with: {load.errors[:1]}")
    for client in clients:
        for number in (before, version):
            answered = client.predict(MODEL, ROW, version=number).version
            _prove(answered == number, f"asked for version {number}, version {answered} answers")
    swap_milliseconds = (load.first_answer[version] - load.last_absent[version]) * 1000
    slowest_milliseconds = load.slowest * 1000
    _say(
        f"4. Version {version} went live while {load.count} requests came over both protocols: none failed, the first "
        f"answer of it came {swap_milliseconds:.0f} ms after its directory appeared, and the slowest of all took "
        f"{slowest_milliseconds:.0f} ms. Versions {before} and {version} both answer by number."
    )
    return version


def _roll_back(clients: Sequence[PredictClient], version: int, removed: int) -> None:
    change = _hotswap("rollback", MODEL)
    _prove(change["version"] == version, f"rolled back to version {change['version']}, not {version}")
    _check_answered(clients, version)
    rows = _check_agreed(version)
    state = rows[removed]["state"]
    _prove(state == "RETIRED", f"version {removed} is {state}")
    _say(
        f"5. Rolled back: version {removed} is removed, the next answer came from version {version}, and the label "
        "`stable`, the alias `champion` and the registry agree."
    )


def _remove_by_hand(settings: Settings, clients: Sequence[PredictClient], version: int, removed: int) -> None:
    _hotswap("restore", MODEL, str(removed))
    _hotswap("label", MODEL, STABLE, str(removed))
    _check_answered(clients, removed)
    path = Repository(settings.models_repo).path(MODEL, removed)
    print(f"\n$ rm -r models_repo/{MODEL}/{path.name}", flush=True)
    with under_load(settings, MODEL, ROW) as load:
        shutil.rmtree(path)
        _prove(load.wait_for(version), f"version {removed} was deleted, but version {version} does not answer")
        (repaired,) = _hotswap("reconcile", MODEL)
    _prove(not load.errors, f"{len(load.errors)} requests failed, the first with: {load.errors[:1]}")
    _prove(not repaired["left"], f"not repaired: {repaired['left']}")
    _check_answered(clients, version)
    _check_agreed(version)
    _say(
        f"6. Version {removed} was restored and went live again. Then its directory was deleted by hand: the server "
        f"fell back to version {version} without failing one of {load.count} requests, and `reconcile` gave it label "
        "and alias and wrote it into the journal."
    )


def _check_agreed(version: int) -> dict[int, Any]:
    """Prove that label and alias are at `version`; the rows of `hotswap status`."""
    rows = {row["version"]: row for row in json.loads(_printed("status", MODEL, "--json"))["versions"]}
    live = rows[version]
    _prove((live["labels"], live["aliases"]) == ([STABLE], ["champion"]), f"label and alias disagree: {live}")
    return rows


def _show_versions() -> None:
    _say("7. What there is now:")
    print(f"\n{_printed('status', MODEL)}", end="", flush=True)


@contextmanager
def _servers(settings: Settings) -> Iterator[Settings]:
    """
    Run a model server on ports that the kernel chooses, and one Prefect server for all trainings.

    Yields the settings with these ports, which the commands find in the environment.
    """
    apply_environment(settings)
    logs = prepare_home(settings) / "logs"
    with temporary_directory() as directory:
        ports_file = directory / "ports.json"
        flags = [*server_flags(settings), STABLE_BY_DEFAULT, "--ephemeral_ports", f"--ports_file={ports_file}"]
        _say(
            f"Working in {settings.home.parent}, with a model server and a Prefect server of the demo's own, which "
            "start now."
        )
        server = Process("demo model server", [sys.executable, "-m", "serving", *flags], logs)
        try:
            prefect = find_prefect(settings)
            _import_everything()
            if prefect is not None:
                prefect.wait()
            ports = _ports(server, ports_file)
            os.environ["HOTSWAP_REST_PORT"] = str(ports["rest_port"])
            os.environ["HOTSWAP_GRPC_PORT"] = str(ports["grpc_port"])
            os.environ.pop("HOTSWAP_PORT_OFFSET", None)
            yield load_settings()
        finally:
            stop([server])


def _ports(server: Process, ports_file: Path) -> dict[str, int]:
    deadline = time.monotonic() + _START_SECONDS
    while not ports_file.exists():
        if server.ended or time.monotonic() > deadline:
            raise DemoFailed(server.failure_message("did not start"))
        time.sleep(0.05)
    ports: dict[str, int] = json.loads(ports_file.read_text())
    return ports


def _prove(holds: bool, otherwise: str) -> None:
    if not holds:
        raise DemoFailed(otherwise)


def _say(text: str) -> None:
    print(f"\n{textwrap.fill(text, width(), break_on_hyphens=False, break_long_words=False)}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
