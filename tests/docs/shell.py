"""A terminal of somebody who works through a page."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.docs.pages import PROJECT, Command
from tests.processes import hotswap

HOTSWAP = ".venv/bin/hotswap "
_STACK = ("up", "down")
_PORTS = {"8501": "REST", "8502": "OPERATOR"}
_TIMEOUT_SECONDS = 240.0


class Shell:
    """It keeps what is exported, and runs ``hotswap …`` as a fork, as how that starts is tested elsewhere."""

    def __init__(
        self, directory: Path, environment: Mapping[str, str], replaced: Mapping[str, str] | None = None
    ) -> None:
        """`replaced` has what stands here for the addresses of a page, besides the ports."""
        self.environment = dict(environment)
        self._directory = directory
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
        done = self._forked(text) if text.startswith(HOTSWAP) else self._executed(text)
        assert done.returncode == command.exit_code, f"{text}\n{done.stdout}{done.stderr}"
        return done.stdout

    def _forked(self, text: str) -> subprocess.CompletedProcess[str]:
        arguments = shlex.split(text.removeprefix(HOTSWAP), comments=True)
        environment = self.environment
        if arguments[0] not in _STACK:
            # Prefect, imported already, has to be given the server of `hotswap up`.
            api_url = f"http://127.0.0.1:{environment['HOTSWAP_PREFECT_PORT']}/api"
            environment = {**environment, "PREFECT_API_URL": api_url}
        return hotswap(environment, *arguments, directory=self._directory)

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
