"""The journal keeps every entry, and notices when one was changed or removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.journal import BrokenJournal, Journal


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """Three entries, the highest version being 7."""
    journal = Journal(tmp_path, "iris")
    journal.append("publish", version=6, digest="d6")
    journal.append("promote", version=7, previous=6, label="stable")
    journal.append("undo", version=2, why="été")
    return journal


def test_entries_come_back_in_order(journal: Journal) -> None:
    """Action, facts, time and person of each are kept; what was not given is not there."""
    entries = journal.read()
    assert [entry.action for entry in entries] == ["publish", "promote", "undo"]
    assert entries[1].facts == {"version": 7, "previous": 6, "label": "stable"}
    assert entries[2].facts["why"] == "été"
    assert all("@" in entry.who and entry.time for entry in entries)
    assert journal.highest_version() == 7


@pytest.mark.parametrize("damage", ["change", "remove", "swap", "insert"])
def test_a_changed_journal_is_noticed(journal: Journal, damage: str) -> None:
    """A line that was changed, removed, moved or added breaks the chain; the message names line and file."""
    lines = journal.path.read_text("utf-8").splitlines(keepends=True)
    damaged = {
        "change": [lines[0].replace('"version": 6', '"version": 5'), *lines[1:]],
        "remove": [lines[0], lines[2]],
        "swap": [lines[1], lines[0], lines[2]],
        "insert": [lines[0], '{"action": "promote"}\n', *lines[1:]],
    }[damage]
    journal.path.write_text("".join(damaged), "utf-8")
    with pytest.raises(BrokenJournal, match=r"Line \d of .*iris.jsonl"):
        journal.read()


def test_a_line_cut_off_by_a_kill_is_dropped(journal: Journal) -> None:
    """Half a line was never an entry: reading leaves it out, and the next entry takes its place."""
    with journal.path.open("a") as file:
        file.write('{"time": "2026-')
    assert len(journal.read()) == 3
    journal.append("promote", version=8)
    assert [entry.version for entry in journal.read()] == [6, 7, 2, 8]
