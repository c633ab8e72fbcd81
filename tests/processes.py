"""
Processes of their own that cost no imports: they are forked from one that has imported everything.

A command does there what it does as ``hotswap``. How it starts, and what it imports when, is not seen here: tests of
that run ``python -m flows.cli``.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from tests.shared_forks import FORKS

_TIMEOUT_SECONDS = 200.0
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_OWN = ("PREFECT_", "MLFLOW_", "HOTSWAP_")
_CERTIFICATE = Path(__file__).with_name("nobody.pem")
"""of nobody"""
PYTHON = "PYTEST_FORKED_PYTHON"
"""the variable with the program of `tests.forked_python`, for a fork that starts others by `sys.executable`"""


def start(action: Callable[..., object], *args: Any, **environment: str) -> BaseProcess:
    """Do something in a process of its own, with this environment and what is given in addition."""
    return start_with({**os.environ, **environment}, action, *args)


def start_with(environment: Mapping[str, str], action: Callable[..., object], *args: Any) -> BaseProcess:
    """Do something in a process of its own, with this environment alone."""
    process = FORKS.Process(target=_run, args=(dict(environment), action, args))
    process.start()
    return process


def finish(process: BaseProcess) -> int | None:
    """The exit code of a process, once it has ended."""
    process.join(_TIMEOUT_SECONDS)
    return process.exitcode


class Piped:
    """A process of its own whose output can be read while it runs."""

    def __init__(
        self, environment: Mapping[str, str], action: Callable[..., object], *args: Any, directory: Path | None = None
    ) -> None:
        outputs, ends = zip(*(FORKS.Pipe(duplex=False) for _ in range(2)), strict=True)
        self._process = start_with(environment, _piped, ends, directory, action, args)
        self.stdout, self.stderr = (os.fdopen(os.dup(each.fileno()), encoding="utf-8") for each in outputs)
        for each in (*outputs, *ends):
            each.close()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs."""
        return self._process.exitcode

    def has_ended(self, within_seconds: float) -> bool:
        """Wait for its end, for so long."""
        self._process.join(within_seconds)
        return self.returncode is not None

    def send_signal(self, number: signal.Signals) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def communicate(self) -> tuple[str, str]:
        """The rest of what it writes to standard output and to standard error, once it has ended."""
        with ThreadPoolExecutor() as pool, self.stdout, self.stderr:
            output, errors = pool.map(lambda pipe: pipe.read(), (self.stdout, self.stderr))
        finish(self._process)
        return output, errors


def running(environment: Mapping[str, str], *arguments: str, directory: Path | None = None) -> Piped:
    """``hotswap …``, which runs."""
    return Piped(environment, run_hotswap, arguments, directory=directory)


def hotswap(environment: Mapping[str, str], *arguments: str, directory: Path | None = None) -> CompletedProcess[str]:
    """``hotswap …``, which has ended."""
    return forked(environment, run_hotswap, arguments, directory=directory)


def forked(
    environment: Mapping[str, str], action: Callable[..., object], *args: Any, directory: Path | None = None
) -> CompletedProcess[str]:
    """Something that was done in a process of its own."""
    process = Piped(environment, action, *args, directory=directory)
    output, errors = process.communicate()
    assert process.returncode is not None
    return CompletedProcess(args, process.returncode, output, errors)


def run_hotswap(arguments: Sequence[str]) -> None:
    """``hotswap …`` in this process."""
    from flows.cli import main

    main(arguments)


def run_prefect(arguments: Sequence[str]) -> None:
    """``prefect --no-prompt …`` in this process."""
    from prefect.cli import app

    sys.argv = ["prefect", "--no-prompt", *arguments]
    app()


def behind_a_dead_proxy(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment with a proxy where nobody listens, for all addresses."""
    kept = {name: value for name, value in environment.items() if name.lower() != "no_proxy"}
    return {**kept, **dict.fromkeys(_PROXIES, "http://127.0.0.1:9")}


def without_settings() -> dict[str, str]:
    """The environment of the tests without what says where a home, MLflow or Prefect is."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_OWN)}


def become(environment: Mapping[str, str]) -> None:
    """Let this process, a fork, have this environment alone."""
    from prefect.context import refresh_global_settings_context

    gc.enable()
    os.environ.clear()
    os.environ.update(environment)
    # Prefect has read the environment when it was imported. It does so once more, and not after a temporary server has
    # been started, so a flow needs `PREFECT_API_URL` from the start.
    refresh_global_settings_context()
    # Whoever runs the tests in the background of a shell has Ctrl-C turned off, for all that they start too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if program := os.environ.pop(PYTHON, None):
        sys.executable = program
        multiprocessing.set_executable(program)


def _run(environment: Mapping[str, str], action: Callable[..., object], args: tuple[Any, ...]) -> None:
    # Without an address Prefect would start a server of its own.
    become({"PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false", **environment})
    action(*args)


def _piped(
    ends: Sequence[Connection], directory: Path | None, action: Callable[..., object], args: tuple[Any, ...]
) -> None:
    for number, end in enumerate(ends, 1):
        os.dup2(end.fileno(), number)
        end.close()
    if directory is not None:
        os.chdir(directory)
    action(*args)
