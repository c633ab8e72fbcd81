"""The operator's port."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from flows.local.operator_http import answering
from flows.settings import Settings
from tests.ports import free_ports


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    (port,) = free_ports(1)
    with answering(Settings(home=tmp_path / "home", models_repo=tmp_path / "models", operator_port=port)):
        yield f"http://127.0.0.1:{port}"


def test_the_operator_says_that_it_lives(url: str) -> None:
    assert requests.get(f"{url}/healthz", timeout=10).text == "ok\n"


def test_the_operator_exports_metrics_of_its_process(url: str) -> None:
    """As Prometheus's own client libraries do, with HELP and TYPE."""
    answer = requests.get(f"{url}/metrics", timeout=10)
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "# TYPE process_resident_memory_bytes gauge" in answer.text
