"""What a flow knows of its own run in Prefect."""

from __future__ import annotations

import os
from typing import Any

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.flow_engine import run_flow

from flows.orchestration.prefect_records import is_of_deployment
from tests.processes import forked


def test_a_run_knows_whether_it_is_of_a_deployment(prefect_api: str) -> None:
    """One that somebody has called is not; one of a deployment is, and so are the flows that it calls."""
    done = forked({**os.environ, "PREFECT_API_URL": prefect_api}, ask_in_each)
    assert done.stdout.split() == ["False", "True", "True"], done.stderr


def ask_in_each() -> None:
    @flow
    def ask() -> bool:
        return is_of_deployment()

    @flow
    def outer() -> tuple[bool, bool]:
        return is_of_deployment(), ask()

    with get_client(sync_client=True) as client:
        deployment = client.create_deployment(client.create_flow(outer), "of a test")
        run = client.create_flow_run_from_deployment(deployment)
    found: Any = run_flow(outer, flow_run=run)
    print(ask(), *found)
