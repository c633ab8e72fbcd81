"""MLflow's page is one process, where MLflow itself has two."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from flows.registry import mlflow_page
from tests.stack import Stack


@pytest.mark.xdist_group("stack")
def test_the_process_that_is_started_serves(stack: Stack) -> None:
    """Nobody else of `hotswap up` listens on its port, and it has started no other Python."""
    processes = psutil.Process(stack.process.pid).children()
    (page,) = [each for each in processes if "flows.registry.mlflow_page" in each.cmdline()]
    listening = {each.laddr.port for each in page.net_connections() if each.status == psutil.CONN_LISTEN}
    assert listening == {urlsplit(stack.mlflow).port}
    assert not [each for each in page.children(recursive=True) if "python" in each.name()]


def test_another_program_is_started_as_mlflow_does() -> None:
    """Such as gunicorn, with the environment that MLflow makes for it."""

    def start(command: list[str], **options: Any) -> str:
        return json.dumps([command, options])

    started = mlflow_page._serve(start, ["gunicorn", "app"], extra_env={"A": "b"}, synchronous=False)
    assert json.loads(started) == [["gunicorn", "app"], {"extra_env": {"A": "b"}, "synchronous": False}]
