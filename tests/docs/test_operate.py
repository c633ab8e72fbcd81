"""
A new user's first week, by the commands of one page: a table is live, scheduled, watched and alerting.

What the tutorial has of the same table is held against what is printed here.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import DOCS, commands, missing_lines
from tests.docs.shell import Shell
from tests.docs.test_tutorial import TUTORIAL, newcomer
from tests.waiting import until

PAGE = DOCS / "how-to" / "operate.md"
DEADLINE_SECONDS = 180.0
NEW_DATA = ".venv/bin/python customers.py 2000"
ASKED = ".venv/bin/hotswap predict churn age=42 plan=basic spend=30.5"
IN_THE_TUTORIAL = (".venv/bin/hotswap train --csv churn.csv --target churned", ASKED)


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


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_new_user_gets_a_table_live_scheduled_watched_and_alerting(
    tmp_path: Path, furnish: Callable[[Path], None], told: tuple[str, list[dict[str, Any]]]
) -> None:
    """Each command of the page does what it says; new data trains by itself, and each promotion is told."""
    receiver, got = told
    project = tmp_path / "project"
    project.mkdir()
    furnish(project / ".hotswap")
    shell = Shell(project, newcomer(project), {"127.0.0.1:9000": receiver})
    printed: dict[str, str] = {}
    try:
        for command in commands(PAGE):
            printed[command.text.partition(" #")[0].strip()] = shell.run(command)
            if command.text.startswith(NEW_DATA):
                until(lambda: promotions(got) == 2, DEADLINE_SECONDS)
    finally:
        shell.hotswap("down")
    assert "churn version 1" in printed[ASKED]
    for text in IN_THE_TUTORIAL:
        shown = next(command.output for command in commands(TUTORIAL) if command.text == text)
        assert missing_lines(shown, printed[text]) == []
    assert "churn" in printed[".venv/bin/hotswap schedule"]
    assert 'hotswap_gate_verdicts_total{model="churn",verdict="passed"} 2.0' in printed_by_url(printed, "8502")
    assert 'model_name="churn"' in printed_by_url(printed, "8501")
    assert "200 rows scored by churn version 2" in " ".join(printed.values())
    assert (tmp_path / "monday.tar.gz").is_file()


def promotions(got: list[dict[str, Any]]) -> int:
    return sum("promoted" in json.dumps(each) for each in got)


def printed_by_url(printed: dict[str, str], port: str) -> str:
    return next(text for command, text in printed.items() if command.startswith("curl") and f":{port}/" in command)
