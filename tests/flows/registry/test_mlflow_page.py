"""MLflow's page is one process, where MLflow itself has two."""

from __future__ import annotations

import json
import os
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from flows.registry import mlflow_page
from tests.ports import process_at


@pytest.mark.xdist_group("mlflow-server")
def test_the_process_that_is_started_serves(mlflow_url: str) -> None:
    """The first of its session listens on its port, and has started no other Python."""
    pid = process_at(urlsplit(mlflow_url).port or 0)
    assert os.getsid(pid) == pid
    assert not [each for each in psutil.Process(pid).children(recursive=True) if "python" in each.name()]


def test_another_program_is_started_as_mlflow_does() -> None:
    """Such as gunicorn, with the environment that MLflow makes for it."""

    def start(command: list[str], **options: Any) -> str:
        return json.dumps([command, options])

    started = mlflow_page._serve(start, ["gunicorn", "app"], extra_env={"A": "b"}, synchronous=False)
    assert json.loads(started) == [["gunicorn", "app"], {"extra_env": {"A": "b"}, "synchronous": False}]
