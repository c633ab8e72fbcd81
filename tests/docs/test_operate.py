"""
A new user's first week, by the commands of one page: a table is live, scheduled, watched and alerting.

It runs beside the `hotswap up` that tests share, which has what the page exports; `tests/flows/local/test_detached.py`
types the two commands that start and end one. What the tutorial has of the same table is held against what is printed.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.docs.pages import DOCS, commands, missing_lines
from tests.docs.shell import HOTSWAP, Shell
from tests.docs.test_tutorial import TUTORIAL, set_up
from tests.stack import Stack
from tests.waiting import until

PAGE = DOCS / "how-to" / "operate.md"
DEADLINE_SECONDS = 180.0
NEW_DATA = ".venv/bin/python customers.py 2000"
ASKED = f"{HOTSWAP}predict churn age=42 plan=basic spend=30.5"
IN_THE_TUTORIAL = (f"{HOTSWAP}train --csv churn.csv --target churned", ASKED)
BEGINNING_AND_END = [f"{HOTSWAP}up --detach", f"{HOTSWAP}down"]
THERE = "json://127.0.0.1:9000/"


@pytest.mark.slow
@pytest.mark.xdist_group("stack")
@pytest.mark.timeout(900)
def test_a_new_user_gets_a_table_live_scheduled_watched_and_alerting(stack: Stack) -> None:
    """Each command of the page does what it says; new data trains by itself, and each promotion is told."""
    set_up(stack.directory)
    shell = Shell(stack.directory, stack.environment, {THERE: stack.told.address})
    typed = list(commands(PAGE))
    assert [each.text for each in typed if each.text in BEGINNING_AND_END] == BEGINNING_AND_END
    printed: dict[str, str] = {}
    for command in typed:
        if command.text not in BEGINNING_AND_END:
            printed[command.text.partition(" #")[0].strip()] = shell.run(command)
        if command.text.startswith(NEW_DATA):
            until(lambda: promotions(stack.told.received) == 2, DEADLINE_SECONDS)
    assert shell.environment == stack.environment
    assert "churn version 1" in printed[ASKED]
    for text in IN_THE_TUTORIAL:
        shown = next(command.output for command in commands(TUTORIAL) if command.text == text)
        assert missing_lines(shown, printed[text]) == []
    assert "churn" in printed[f"{HOTSWAP}schedule"]
    assert 'hotswap_gate_verdicts_total{model="churn",verdict="passed"} 2.0' in printed_by_url(printed, "8502")
    assert 'model_name="churn"' in printed_by_url(printed, "8501")
    assert "200 rows scored by churn version 2" in " ".join(printed.values())
    assert (stack.directory.parent / "monday.tar.gz").is_file()
    stack.document("schedule", "--csv", "churn.csv", "--target", "churned", "--remove")


def promotions(told: list[dict[str, Any]]) -> int:
    return sum("churn" in text and "promoted" in text for text in map(json.dumps, told))


def printed_by_url(printed: dict[str, str], port: str) -> str:
    return next(text for command, text in printed.items() if command.startswith("curl") and f":{port}/" in command)
