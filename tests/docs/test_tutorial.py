"""The tutorial, as a newcomer works through it, and the session of the README, which is a part of it."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, PROJECT, README, Command, blocks, commands, isolated_environment, missing_lines
from tests.processes import hotswap

TUTORIAL = DOCS / "tutorial.md"
HOTSWAP = ".venv/bin/hotswap "
UP = f"{HOTSWAP}up"
PROGRAMS = ("customers.py", "wine.py", "elsewhere.py")
IN_SOAK = ("train iris --epochs 1", "train wine.py")
"""trainings that the demo and the tests of training prove too"""


@contextmanager
def up(directory: Path, environment: Mapping[str, str]) -> Iterator[None]:
    """The first terminal: `hotswap up`, once it says that everything runs."""
    running = subprocess.Popen(
        [f"exec {UP}"], shell=True, cwd=directory, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert running.stdout is not None
        assert any("Ctrl-C" in line for line in running.stdout)
        yield
    finally:
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=60)


def run(command: Command, directory: Path, environment: Mapping[str, str]) -> str:
    """The second terminal: one command; what it prints."""
    text = command.text.replace(":8501", f":{environment['HOTSWAP_REST_PORT']}")
    if text.startswith("make "):
        text, directory = text.replace("make", "make --dry-run"), PROJECT
    if text.startswith(HOTSWAP):
        return forked(command, directory, environment)
    done = subprocess.run(
        ["bash", "-c", text], cwd=directory, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == command.exit_code, f"{command.text}\n{done.stdout}{done.stderr}"
    return done.stdout


def forked(command: Command, directory: Path, environment: Mapping[str, str]) -> str:
    """The same for ``hotswap …`` without its imports: Prefect, imported already, has to be given the server of `up`."""
    api_url = f"http://127.0.0.1:{environment['HOTSWAP_PREFECT_PORT']}/api"
    arguments = shlex.split(command.text.removeprefix(HOTSWAP), comments=True)
    done = hotswap({**environment, "PREFECT_API_URL": api_url}, *arguments, directory=directory)
    assert done.returncode == command.exit_code, f"{command.text}\n{done.stdout}{done.stderr}"
    return done.stdout


def newcomer(directory: Path) -> dict[str, str]:
    """A directory that has what a clone has after `make setup`; the environment of a shell in it."""
    (directory / ".venv").symlink_to(sys.prefix)
    for name, program in zip(PROGRAMS, blocks(TUTORIAL, "python"), strict=True):
        (directory / name).write_text(program)
    return isolated_environment()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_tutorial_is_what_happens(tmp_path: Path, furnish: Callable[[Path], None], soak: bool) -> None:
    """Every command of it ends with its exit code, and prints the lines that the page shows, but for ids and times."""
    environment = newcomer(tmp_path)
    furnish(tmp_path / ".hotswap")
    printed: dict[str, str] = {}
    setup, start, *rest = commands(TUTORIAL)
    assert start.text == UP
    run(setup, tmp_path, environment)
    with up(tmp_path, environment):
        for command in (each for each in rest if soak or not any(words in each.text for words in IN_SOAK)):
            printed[command.text] = run(command, tmp_path, environment)
            assert missing_lines(command.output, printed[command.text]) == [], printed[command.text]
    session = [command for command in commands(README) if not command.text.startswith("make ")]
    for command in session:
        text = next(text for text in printed if text.startswith(command.text))
        assert missing_lines(command.output, printed[text]) == [], printed[text]
