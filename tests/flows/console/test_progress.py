"""Whoever waits sees at once what is being done, and the result is not mixed up with it."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

from flows.console import progress
from tests.flows.console.terminals import on_a_terminal

COMMAND = [sys.executable, "-m", "flows.cli"]
RUN = "db878d736ee04d539dd4471d6271a571"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home and a models repository of the test's own, ports where nobody listens."""
    for name in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "PREFECT_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOTSWAP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HOTSWAP_MODELS_REPO", str(tmp_path / "models"))
    for number, name in enumerate(("REST", "GRPC", "MLFLOW", "PREFECT"), 1):
        monkeypatch.setenv(f"HOTSWAP_{name}_PORT", str(number))
    return tmp_path


def program(body: str) -> list[str]:
    return [sys.executable, "-c", f"import logging, os, sys\nfrom flows.console import progress\n{body}"]


def test_a_mistake_in_a_command_ends_the_live_line_first() -> None:
    """The sentence stands alone on its line, and the cursor is shown again."""
    shown = on_a_terminal([*COMMAND, "rollback", "iris"])
    assert shown.code == 1
    assert "rolling back iris" in shown.text
    assert next(line for line in shown.lines if line).startswith("hotswap: No version of 'iris'")
    assert shown.text.rindex("\x1b[?25h") < shown.text.index("hotswap: ")


def test_the_live_line_is_seen_while_standard_error_is_held_back() -> None:
    """What holds file descriptor 2 back, as the start of TensorFlow does, holds no step back."""
    shown = on_a_terminal(
        program(
            "from serving.runtime.native_logs import without_start_up_notes\n"
            "with progress.shown('first'):\n"
            "    with without_start_up_notes():\n"
            "        progress.note('second')\n"
            "        import time; time.sleep(0.5)\n"
            "print('result')"
        )
    )
    assert "second" in shown.text
    assert [line for line in shown.lines if line] == ["result"]


def test_warnings_stay_above_the_live_line() -> None:
    """A warning is still there when the live line has gone; a line of information is not."""
    shown = on_a_terminal(
        program(
            "with progress.shown('first'):\n"
            "    logging.getLogger('flows.promotion.promotion').warning('disk [/b] nearly full')\n"
            "    logging.getLogger('flows.promotion.promotion').info('version published')\n"
            "print('result')"
        )
    )
    lines = [line for line in shown.lines if line]
    assert lines[0].endswith("disk [/b] nearly full")
    assert lines[1:] == ["result"]


def test_without_a_terminal_steps_of_quick_commands_are_not_told(capsys: pytest.CaptureFixture[str]) -> None:
    """A quiet block says nothing in a pipe, and still shows warnings."""
    with progress.shown("rolling back", logging.WARNING, quiet=True):
        progress.note("asking")
        logging.getLogger("flows.promotion.promotion").warning("old run %s", RUN)
    assert capsys.readouterr().err.split(maxsplit=1)[1] == f"old run {RUN}\n"


def test_lines_of_progress_are_short_and_warnings_whole(capsys: pytest.CaptureFixture[str]) -> None:
    """Run ids become short first; what is still too long is cut; a warning is not."""
    log = logging.getLogger("flows.promotion.promotion")
    with progress.shown("training"):
        log.info("version registered run=%s", RUN)
        log.info("x" * 100)
        log.warning("y" * 100)
    registered, cut, whole = capsys.readouterr().err.splitlines()
    assert registered.endswith(f"run={RUN[:8]}")
    assert len(cut) == 80
    assert whole.endswith("y" * 100)
