"""The operator's port."""

from __future__ import annotations

import subprocess
import sys
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


def test_the_operator_starts_without_what_is_large() -> None:
    """It runs all the time, so what a repair, a drift or a training needs is imported when one comes."""
    program = (
        "import sys, flows.local.operator; "
        "large = {'keras', 'mlflow', 'pandas', 'prefect', 'scipy', 'sklearn', 'tensorflow'}; "
        "sys.exit(' '.join(large & {*sys.modules}) or None)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
