"""What the command line says of itself: help, version, completion, and what it does with a typing mistake."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flows.cli import run
from flows.commands.application import app
from serving.flags import flag_defaults, flag_meanings
from tests.flows.console.terminals import on_a_terminal
from tests.processes import hotswap

COMMAND = [sys.executable, "-m", "flows.cli"]
COMMANDS = [command.callback.__name__ for command in app.registered_commands if command.callback]


def test_no_line_of_help_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    """The list of commands has a whole sentence for each."""
    for arguments in ([], ["--help"], ["help"]):
        assert run(arguments) == 0
        text = capsys.readouterr().out
        assert "..." not in text.split("Commands:")[1]
        assert all(f"  {command} " in text for command in COMMANDS)


@pytest.mark.parametrize("command", [command for command in COMMANDS if command != "serve"])
def test_every_option_has_a_help_of_its_own(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each option and argument is followed by words; ``hotswap help COMMAND`` is the same; nothing is beyond 80."""
    assert run([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert run(["help", command]) == 0
    assert capsys.readouterr().out == text
    assert all(len(line) <= 80 for line in text.splitlines())
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if line.startswith("  -"):
            following = lines[number + 1] if number + 1 < len(lines) else ""
            assert "  " in line.strip() or following.startswith("      "), line


def test_the_help_of_serve_lists_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    """Each flag of the model server stands there with its default and what it does; the exit code is 0."""
    assert run(["serve", "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, default in flag_defaults().items():
        assert lines[lines.index(f"--{name}={default}") + 1].startswith("    ")
    assert flag_defaults().keys() <= flag_meanings().keys()
    assert all(len(line) <= 80 for line in lines)


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    """``hotswap --version`` prints one line."""
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == "hotswap 0.1.0\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["statsu"], "Did you mean 'status'? See `hotswap --help`"),
        (["help", "statsu"], "Did you mean 'status'?"),
        (["train", "--epocs", "3"], "--epochs"),
        (["label", "iris"], "see `hotswap label --help`"),
    ],
)
def test_a_typing_mistake_is_answered_with_what_was_meant(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, one line, the nearest word and where the help is."""
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert expected in captured.err
    assert captured.err.count("\n") == 1


@pytest.fixture
def repository(tiny_model: Any, tmp_path: Path) -> Path:
    """Two models, one with a retired version."""
    for model, version in (("iris", 1), ("iris", 12), ("digits", 3)):
        tiny_model(tmp_path / model, version)
    tiny_model(tmp_path / ".retired" / "iris", 7)
    return tmp_path


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("hotswap st", ["status"]),
        ("hotswap retire ", ["digits", "iris"]),
        ("hotswap retire iris ", ["1", "12"]),
        ("hotswap restore iris ", ["7"]),
        ("hotswap explain iris 1", ["1", "12"]),
        ("hotswap label iris st", ["stable"]),
        ("hotswap train di", ["digits", "digits_images", "diabetes"]),
        ("hotswap rollback iris --r", ["--reason"]),
    ],
)
def test_the_shell_completes_commands_models_and_versions(typed: str, offered: list[str], repository: Path) -> None:
    """What bash is offered after Tab."""
    words = typed.split()
    environment = {
        **os.environ,
        "HOTSWAP_MODELS_REPO": str(repository),
        "_HOTSWAP_COMPLETE": "complete_bash",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(len(words) - (not typed.endswith(" "))),
    }
    done = hotswap(environment)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, offered, "")


def test_the_shell_completes_a_command_that_is_started_anew() -> None:
    """It imports what it needs for that alone."""
    environment = {**os.environ, "_HOTSWAP_COMPLETE": "complete_bash", "COMP_WORDS": "hotswap st", "COMP_CWORD": "1"}
    done = subprocess.run(COMMAND, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["status"], "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_gets_its_script(shell: str) -> None:
    """``hotswap --show-completion`` prints what the shell is to run."""
    done = hotswap({**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}, "--show-completion", shell)
    assert done.returncode == 0
    assert "_HOTSWAP_COMPLETE" in done.stdout


def test_help_imports_nothing_that_takes_long() -> None:
    """
    ``hotswap --help`` is there at once: only what reads the command line is loaded.

    What the worker of `hotswap up` does needs not even that.
    """
    program = (
        "import sys; from flows.cli import run; "
        "assert not {'typer', 'grpc', 'pydantic'} & {*sys.modules}; run(['--help']); "
        "slow = {'numpy', 'pydantic', 'rich.console', 'mlflow', 'prefect', 'tensorflow'}; "
        "sys.exit(' '.join(slow & {*sys.modules}) or None)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_mistake_is_wrapped_between_words_on_a_terminal() -> None:
    """A long sentence does not break its words at the edge of the terminal."""
    shown = on_a_terminal([*COMMAND, "predict", "iris", "1,2,three hundred and sixty five times the root of two"])
    assert shown.code == 1
    assert len(shown.lines) > 1
    assert all(len(line) <= 80 for line in shown.lines)
