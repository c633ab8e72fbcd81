"""A terminal of somebody who works through a page."""

from __future__ import annotations

import runpy
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.docs.pages import PROJECT, Command
from tests.processes import forked, hotswap

HOTSWAP = ".venv/bin/hotswap "
_MLFLOW_TABLES = ".venv/bin/mlflow db "
_KERAS_PROGRAM = ".venv/bin/python elsewhere.py"
_STACK = ("up", "down")
_PORTS = {"8501": "REST", "8502": "OPERATOR"}
_TIMEOUT_SECONDS = 240.0


class Shell:
    """It keeps what is exported, and runs ``hotswap …`` in a fork, as how that starts is tested elsewhere."""

    def __init__(
        self,
        directory: Path,
        environment: Mapping[str, str],
        replaced: Mapping[str, str] | None = None,
        prefect: str | None = None,
        up: Mapping[str, str] | None = None,
    ) -> None:
        """
        Args:
            directory: Where it is.
            environment: What is exported at first.
            replaced: What stands here for the addresses of a page, besides the ports.
            prefect: The address of another Prefect than that of `hotswap up`.
            up: What `hotswap up` has in its environment besides.
        """
        self.environment = dict(environment)
        self._prefect = prefect or f"http://127.0.0.1:{environment['HOTSWAP_PREFECT_PORT']}/api"
        self._directory = directory
        self._up = up or {}
        ports = {f":{number}": f":{environment[f'HOTSWAP_{name}_PORT']}" for number, name in _PORTS.items()}
        self._replaced = {**(replaced or {}), **ports}

    def run(self, command: Command) -> str:
        """What a command prints; it has to end with the exit code that the page says."""
        text = command.text
        for there, here in self._replaced.items():
            text = text.replace(there, here)
        if text.startswith("export "):
            name, _, value = text.removeprefix("export ").partition(" #")[0].strip().partition("=")
            self.environment[name] = value.strip('"')
            return ""
        if text.startswith(HOTSWAP):
            done = self.hotswap(*shlex.split(text.removeprefix(HOTSWAP), comments=True))
        elif text.startswith(_MLFLOW_TABLES):
            arguments = shlex.split(text.removeprefix(_MLFLOW_TABLES).replace("$PWD", str(self._directory)))
            done = forked(self.environment, run_mlflow_db, arguments, directory=self._directory)
        elif text == _KERAS_PROGRAM:
            done = forked(self.environment, run_program, shlex.split(text)[1:], directory=self._directory)
        else:
            done = self._executed(text)
        assert done.returncode == command.exit_code, f"{text}\n{done.stdout}{done.stderr}"
        return done.stdout

    def hotswap(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """``hotswap …``, which has ended; Prefect, imported already, has to be given its server."""
        given = self._up if arguments[0] in _STACK else {"PREFECT_API_URL": self._prefect}
        return hotswap({**self.environment, **given}, *arguments, directory=self._directory)

    def _executed(self, text: str) -> subprocess.CompletedProcess[str]:
        directory = self._directory
        if text.startswith("make "):
            text, directory = text.replace("make", "make --dry-run"), PROJECT
        return subprocess.run(
            ["bash", "-c", text],
            cwd=directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )


def run_mlflow_db(arguments: list[str]) -> None:
    """``mlflow db …`` in this process."""
    from mlflow.db import commands

    commands(arguments)


def run_program(arguments: list[str]) -> None:
    """``python …`` in this process."""
    sys.argv = arguments
    runpy.run_path(arguments[0], run_name="__main__")
