"""A new user's first week, by the commands of one page: a table is live, scheduled, watched and alerting."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import DOCS, PROJECT, commands
from tests.docs.test_tutorial import newcomer
from tests.waiting import until

PAGE = DOCS / "how-to" / "operate.md"
DEADLINE_SECONDS = 180.0
NEW_DATA = ".venv/bin/python customers.py 3000"
DEFAULT_PORTS = {"8501": "REST", "8502": "OPERATOR"}


@pytest.fixture
def told() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A receiver of notifications: its address, and what it has got."""
    got: list[dict[str, Any]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}", got
        server.shutdown()


class Shell:
    """The one terminal of the user, which keeps what is exported."""

    def __init__(self, directory: Path, environment: dict[str, str], receiver: str) -> None:
        self.environment = environment
        self._directory = directory
        self._ports = {number: environment[f"HOTSWAP_{name}_PORT"] for number, name in DEFAULT_PORTS.items()}
        self._receiver = receiver

    def run(self, text: str, exit_code: int) -> str:
        """One command as the page has it, at the ports and the receiver of the test; what it prints."""
        text = text.replace("127.0.0.1:9000", self._receiver)
        for number, port in self._ports.items():
            text = text.replace(f":{number}", f":{port}")
        directory = self._directory
        if text.startswith("make "):
            text, directory = text.replace("make", "make --dry-run"), PROJECT
        if text.startswith("export "):
            name, _, value = text.removeprefix("export ").partition(" #")[0].strip().partition("=")
            self.environment[name] = value.strip('"')
            return ""
        done = subprocess.run(
            ["bash", "-c", text],
            cwd=directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
            check=False,
        )
        assert done.returncode == exit_code, f"{text}\n{done.stdout}{done.stderr}"
        return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_new_user_gets_a_table_live_scheduled_watched_and_alerting(
    tmp_path: Path, furnish: Callable[[Path], None], told: tuple[str, list[dict[str, Any]]]
) -> None:
    """Each command of the page does what it says; new data trains by itself, and each promotion is told."""
    receiver, got = told
    project = tmp_path / "project"
    project.mkdir()
    environment = newcomer(project)
    furnish(project / ".hotswap")
    shell = Shell(project, environment, receiver)
    printed: dict[str, str] = {}
    try:
        for command in commands(PAGE):
            printed[command.text.partition(" #")[0].strip()] = shell.run(command.text, command.exit_code)
            if command.text.startswith(NEW_DATA):
                until(lambda: promotions(got) == 2, DEADLINE_SECONDS)
    finally:
        subprocess.run(
            [".venv/bin/hotswap", "down"], cwd=project, env=environment, capture_output=True, timeout=120, check=False
        )
    assert "churn version 1" in printed[".venv/bin/hotswap predict churn age=42 plan=basic spend=30.5"]
    assert "churn" in printed[".venv/bin/hotswap schedule"]
    assert 'hotswap_gate_verdicts_total{model="churn",verdict="passed"} 2.0' in printed_by_url(printed, "8502")
    assert 'model_name="churn"' in printed_by_url(printed, "8501")
    assert "200 rows scored by churn version 2" in " ".join(printed.values())
    assert (tmp_path / "monday.tar.gz").is_file()


def promotions(got: list[dict[str, Any]]) -> int:
    return sum("promoted" in json.dumps(each) for each in got)


def printed_by_url(printed: dict[str, str], port: str) -> str:
    return next(text for command, text in printed.items() if command.startswith("curl") and f":{port}/" in command)
