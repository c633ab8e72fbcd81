"""Prefect's server on SQLite keeps up with several runs at a time."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import requests

from flows.orchestration.prefect_database import write_in_turn

if TYPE_CHECKING:
    from tests.stack import Stack

_AT_A_TIME, _EACH = 6, 4


def _statuses(api_url: str) -> set[int]:
    """The statuses of runs that are made, begun and ended at the same time."""
    flow = requests.post(f"{api_url}/flows/", json={"name": "several at a time"}, timeout=30).json()["id"]

    def make_runs(_: int) -> set[int]:
        statuses = set()
        with requests.Session() as asking:
            for _ in range(_EACH):
                made = asking.post(f"{api_url}/flow_runs/", json={"flow_id": flow}, timeout=70)
                statuses.add(made.status_code)
                for state in ("RUNNING", "COMPLETED") if made.ok else ():
                    address = f"{api_url}/flow_runs/{made.json()['id']}/set_state"
                    statuses.add(asking.post(address, json={"state": {"type": state}}, timeout=70).status_code)
        return statuses

    with ThreadPoolExecutor(_AT_A_TIME) as threads:
        return set().union(*threads.map(make_runs, range(_AT_A_TIME)))


def test_runs_at_the_same_time_are_all_kept_by_the_server_of_a_command(prefect_api: str) -> None:
    """As Prefect has it, two in five are refused with status 503, and now and then nothing is answered for a minute."""
    assert _statuses(prefect_api) == {201}


@pytest.mark.xdist_group("stack")
def test_runs_at_the_same_time_are_all_kept_by_the_server_of_up(stack: Stack) -> None:
    assert _statuses(f"{stack.prefect}/api") == {201}


def test_prefect_does_as_it_likes_where_a_release_has_none_of_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from prefect.server.database import dependencies

    monkeypatch.delattr(dependencies, "set_database_config")
    with caplog.at_level(logging.WARNING):
        write_in_turn()
    assert "Prefect's runs may wait for each other: ImportError" in caplog.text
