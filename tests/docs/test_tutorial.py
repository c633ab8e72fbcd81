"""
The tutorial, as a newcomer works through it, and the session of the README, which is a part of it.

In the short form it stays with the iris: the page on operating shows the table live, with everything that `hotswap up`
starts, while MLflow's page and Prefect are elsewhere here, no worker takes the trainings, and all is forked.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, README, blocks, commands, isolated_environment, missing_lines
from tests.docs.shell import HOTSWAP, Shell

TUTORIAL = DOCS / "tutorial.md"
UP = f"{HOTSWAP}up"
PROGRAMS = ("customers.py", "wine.py", "elsewhere.py")
IN_SOAK = ("train iris --epochs 1", "customers.py", "churn", "wine.py", "elsewhere.py", "cellar")


@contextmanager
def up(command: str, directory: Path, environment: Mapping[str, str]) -> Iterator[None]:
    """The first terminal: `hotswap up`, once it says that everything runs."""
    running = subprocess.Popen(
        [f"exec {command}"], shell=True, cwd=directory, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert running.stdout is not None
        assert any("Ctrl-C" in line for line in running.stdout)
        yield
    finally:
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=60)


def newcomer(directory: Path) -> dict[str, str]:
    """The environment of a shell in a directory that `set_up` has made."""
    set_up(directory)
    return isolated_environment()


def set_up(directory: Path) -> None:
    """Let a directory have what a clone has after `make setup`, and the programs of the page."""
    (directory / ".venv").symlink_to(sys.prefix)
    for name, program in zip(PROGRAMS, blocks(TUTORIAL, "python"), strict=True):
        (directory / name).write_text(program)


@pytest.fixture
def elsewhere(soak: bool, prefect_api: str) -> dict[str, str]:
    """What `hotswap up` does not start."""
    if soak:
        return {}
    return {
        "PREFECT_API_URL": prefect_api,
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:1",
        "HOTSWAP_RECONCILE_SECONDS": "0",
    }


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_tutorial_is_what_happens(
    tmp_path: Path,
    furnish: Callable[[Path], None],
    elsewhere: dict[str, str],
    forked_sandbox: Path,
    python: str,
    soak: bool,
) -> None:
    """Every command of it ends with its exit code, and prints the lines that the page shows, but for ids and times."""
    environment = newcomer(tmp_path)
    furnish(tmp_path / ".hotswap")
    printed: dict[str, str] = {}
    setup, start, *rest = commands(TUTORIAL)
    assert start.text == UP
    sandbox = {} if soak else {"HOTSWAP_SANDBOX_SERVER": str(forked_sandbox)}
    second_terminal = Shell(tmp_path, {**environment, **sandbox}, prefect=elsewhere.get("PREFECT_API_URL"))
    second_terminal.run(setup)
    with up(UP if soak else f"{python} -m flows.cli up", tmp_path, {**environment, **elsewhere}):
        for command in rest:
            if not soak and any(words in command.text for words in IN_SOAK):
                continue
            printed[command.text] = second_terminal.run(command)
            assert missing_lines(command.output, printed[command.text]) == [], printed[command.text]
    session = [command for command in commands(README) if not command.text.startswith("make ")]
    for command in session:
        text = next(text for text in printed if text.startswith(command.text))
        assert missing_lines(command.output, printed[text]) == [], printed[text]
