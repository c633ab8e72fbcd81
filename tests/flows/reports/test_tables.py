"""Tables fit the terminal that they are read on, whatever stands in them."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console, Group

from flows.cli import run
from flows.console.terminal import elided, one_line, wrapped
from flows.gate.checks import Check
from flows.gate.noninferiority import Verdict
from flows.journal import Entry, Journal
from flows.reports.status import VersionRow
from flows.reports.tables import gate_table, history_table, version_table
from serving.repository.stamp import Stamp
from tests.flows.console.terminals import hotswap_on_a_terminal

RUN = "db878d736ee04d539dd4471d6271a571"
REASON = "answers were wrong for all rows that came from the third sensor; " * 4
LONG_NAME = "n" * 200
WORDS = st.text(max_size=120)


def rendered(table: Group, columns: int | None) -> list[str]:
    """The lines that a console of this width shows."""
    console = Console(file=io.StringIO(), width=columns or 100_000)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def version_row(**facts: Any) -> VersionRow:
    usual = {
        "model": "iris",
        "version": 1,
        "state": "AVAILABLE",
        "labels": ("stable",),
        "aliases": ("champion",),
        "accuracy": 0.9667,
        "run_id": RUN,
        "digest": "d",
        "published_at": "2026-11-24T03:03:42+00:00",
    }
    return VersionRow(**{**usual, **facts})


@given(model=WORDS, state=st.sampled_from(["AVAILABLE", "NOT SERVED", "START"]), columns=st.integers(80, 200))
def test_versions_fit_the_terminal(model: str, state: str, columns: int) -> None:
    """No line of the table is longer than the terminal, and each version has its number, state and short run id."""
    rows = [version_row(model=model, version=version, state=state, labels=("stable", "canary")) for version in (7, 12)]
    lines = rendered(version_table(rows, columns), columns)
    assert all(cell_len(line) <= columns for line in lines)
    for version in ("7", "12"):
        assert any(f" {version}  {state.split()[0]}" in line and RUN[:8] in line for line in lines)


@given(why=WORDS, who=WORDS, label=WORDS, columns=st.integers(80, 200))
def test_history_fits_the_terminal_and_keeps_every_reason(why: str, who: str, label: str, columns: int) -> None:
    """No line is too long, and what is left of a reason without control characters stands there in whole."""
    why = f"because {why}"
    facts = {"version": 12, "previous": 7, "label": label, "why": why}
    entry = Entry("2026-11-24T03:03:42.000+00:00", who, "rolling back", facts, "h")
    lines = rendered(history_table([entry], columns), columns)
    assert all(cell_len(line) <= columns for line in lines)
    shown = "".join("".join(lines[2:]).split())
    assert shown == "".join(one_line(why).split())


@given(measured=WORDS, required=WORDS, why=WORDS, columns=st.integers(80, 200))
def test_checks_fit_the_terminal_and_keep_their_verdict(measured: str, required: str, why: str, columns: int) -> None:
    """No line of the gate's table is too long, and the verdict is never cut."""
    checks = [
        Check("non-inferiority", measured, required, verdict, why) for verdict in (Verdict.PASSED, Verdict.INCONCLUSIVE)
    ]
    lines = rendered(gate_table(checks, columns), columns)
    assert all(cell_len(line) <= columns for line in lines)
    assert sum("non-inferiority" in line and "inconclusive" in line for line in lines) == 1


def test_short_run_ids_are_whole_whatever_the_labels_are() -> None:
    """Long labels, a model behind one of two servers and aliases that differ leave the run id its eight characters."""
    for model, labels, state in (
        ("0" * 8, ("canary", "stable"), "AVAILABLE"),
        ("digits", ("a" * 40, "stable"), "served by 1 of 2"),
        (LONG_NAME, ("a" * 20, "b" * 20), "served by 1 of 2"),
    ):
        row = version_row(model=model, labels=labels, aliases=("c" * 20,), state=state)
        lines = rendered(version_table([row], 80), 80)
        assert all(cell_len(line) <= 80 for line in lines)
        assert RUN[:8] in lines[1]


def test_aliases_that_the_labels_do_not_imply_are_always_shown() -> None:
    """Where there is no room, aliases are left out only as long as they say what the labels say."""
    same = [version_row(model=LONG_NAME)]
    other = [version_row(model=LONG_NAME, aliases=("challenger",))]
    assert "aliases" not in rendered(version_table(same, 80), 80)[0]
    assert "challenger" in rendered(version_table(other, 80), 80)[1]


def test_words_of_others_neither_mark_up_nor_steer_the_terminal() -> None:
    """Brackets are shown as they are, escape sequences lose their escape character, line breaks become spaces."""
    entry = Entry("2026-11-24T03:03:42+00:00", "me", "label", {"why": "[/b] a\n\x1b[2Jb [red]c"}, "h")
    lines = rendered(history_table([entry], 80), 80)
    assert lines[2].strip() == "[/b] a [2Jb [red]c"


@given(text=st.text(), columns=st.integers(8, 90))
def test_what_is_elided_keeps_both_ends(text: str, columns: int) -> None:
    """A text that is short enough is as it was; another one fits."""
    short = elided(text, columns)
    assert short == text if cell_len(text) <= columns else "…" in short
    assert cell_len(short) <= columns


def test_sentences_are_one_line_each_where_no_terminal_is() -> None:
    """What goes into a pipe is not wrapped."""
    assert wrapped(REASON, io.StringIO()) == REASON


@pytest.fixture
def repository(tiny_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Models with long and short names, stamps and journals; nobody listens on the ports."""
    before = dict(os.environ)
    monkeypatch.setenv("HOTSWAP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HOTSWAP_MODELS_REPO", str(tmp_path / "models"))
    for name in ("REST", "GRPC", "MLFLOW", "PREFECT"):
        monkeypatch.setenv(f"HOTSWAP_{name}_PORT", "1")
    stamp = Stamp(run_id=RUN, metrics={"test_accuracy": 0.9667}, published_at="2026-11-24T03:03:42+00:00")
    for model in ("iris", LONG_NAME):
        for version in (1, 12):
            stamp.write(tiny_model(tmp_path / "models" / model, version))
            Journal(tmp_path / "models", model).append("promote", version=version, label="stable", why=REASON)
    yield tmp_path
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.usefixtures("repository")
@pytest.mark.parametrize(
    "arguments",
    [
        ["status"],
        ["history", "iris"],
        ["history", LONG_NAME],
        ["explain", LONG_NAME, "12"],
        ["doctor"],
        ["reconcile", "--dry-run"],
        ["rollback", LONG_NAME, "--dry-run"],
        ["status", "nonsense"],
    ],
    ids=lambda arguments: "-".join(arguments)[:20],
)
def test_no_line_on_a_terminal_of_80_columns_is_longer(arguments: list[str]) -> None:
    """Every command that shows a table or a report, in a real terminal, with long names and reasons."""
    shown = hotswap_on_a_terminal(*arguments)
    assert shown.code in (0, 1)
    assert shown.lines
    words = (LONG_NAME, str(Path.cwd()), os.environ["HOTSWAP_MODELS_REPO"], os.environ["HOTSWAP_HOME"])
    long = [line for line in shown.lines if cell_len(line) > 80 and not any(word in line for word in words)]
    assert long == []


@pytest.mark.usefixtures("repository")
def test_wide_shows_whole_ids_and_reasons_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    """With --wide nothing is shortened, in a pipe as on a terminal."""
    assert run(["status", "iris", "--wide"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines[5:8]] == ["run", RUN, RUN]
    assert run(["history", LONG_NAME, "--wide"]) == 0
    assert capsys.readouterr().out.count(" ".join(REASON.split())) == 2
    assert run(["status", "iris"]) == 0
    assert RUN not in (short := capsys.readouterr().out)
    assert RUN[:8] in short
