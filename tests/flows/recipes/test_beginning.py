"""``hotswap init``: what it writes passes as it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from flows.cli import run
from flows.recipes.beginning import KINDS, begin
from tests.processes import Piped, without_settings

IN_MAKE_TEST = "several-inputs"
"""the kind that has the most of what the others have"""


def module(kind: str) -> str:
    return f"own_{kind.replace('-', '_')}"


def run_pytest(arguments: Sequence[str]) -> None:
    raise SystemExit(pytest.main(["-q", "-p", "no:cacheprovider", *arguments]))


@pytest.mark.slow
def test_the_tests_of_every_kind_pass_unchanged(soak: bool, tmp_path: Path) -> None:
    """With nothing but pytest, in the directory of a user."""
    kinds = KINDS if soak else [IN_MAKE_TEST, "blank"]
    files = [begin(module(kind), kind, tmp_path)[1].name for kind in kinds]
    testing = Piped(without_settings(), run_pytest, files, directory=tmp_path)
    output, errors = testing.communicate()
    assert testing.returncode == 0, output + errors
    assert f"{2 * len(kinds)} passed" in output


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind == IN_MAKE_TEST else pytest.mark.soak) for kind in KINDS]
)
def test_every_kind_goes_live_unchanged(kind: str, home: Any, tmp_path: Path) -> None:
    """By the name of its file, in the working directory."""
    name = module(kind)
    written, trained = home.run(("init", name, "--kind", kind), ("train", f"{name}.py"), directory=tmp_path)
    assert written["files"] == [f"{name}.py", f"test_{name}.py", f"{name}.md"]
    assert (trained["decision"], trained["model"], trained["live"]) == ("passed", name, True)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["churn", "--kind", "chess"], "no kind 'chess'"),
        (["my-churn"], "cannot be a Python module"),
        (["class"], "cannot be a Python module"),
        (["json"], "is installed here"),
        (["there"], "there.py is here already"),
    ],
)
def test_nothing_is_written_where_it_cannot_be_used(
    arguments: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence with the reason, exit code 1, and no file is touched."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.py").write_text("mine")
    assert run(["init", *arguments]) == 1
    assert told in capsys.readouterr().err
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("there.py", "mine")]
