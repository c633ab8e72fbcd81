"""Operations of TensorFlow Text and Decision Forests run where these are installed; else the next step is named."""

from __future__ import annotations

import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from clients.rest_client import RestClient
from tests.serving.runtime.one_operation import save

DECISION_FOREST = Path(__file__).parent / "models" / "decision_forest"
NO_RETRIES = {"max_num_load_retries": 0}


def url_of(server: Any) -> str:
    return f"http://127.0.0.1:{server.rest_port}"


def test_operations_of_tensorflow_text_are_loaded(model_server: Any, tmp_path: Path) -> None:
    """A model that needs one of them is served, without an import of the package."""
    save(tmp_path / "text" / "1", "CaseFoldUTF8")
    server = model_server(model_base_path=str(tmp_path / "text"), **NO_RETRIES)
    with RestClient(url_of(server)) as client:
        found = client.predict("default", {"text": ["GRÜẞE", "ab"]}).outputs["found"]
    assert [each.decode() for each in found] == ["grüsse", "ab"]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the operations are built for x86-64 alone")
def test_operations_of_decision_forests_are_loaded(model_server: Any) -> None:
    """A forest that YDF has exported gives YDF's answers."""
    server = model_server(model_base_path=str(DECISION_FOREST), **NO_RETRIES)
    rows = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)[:4]
    with RestClient(url_of(server)) as client:
        found = client.predict("default", {"a": rows[:, 0], "b": rows[:, 1]}).outputs
    (probabilities,) = found.values()
    np.testing.assert_allclose(np.ravel(probabilities), [0.365118, 0.6222695, 0.365118, 0.6222695], rtol=1e-5)


@pytest.mark.parametrize(
    ("operation", "next_step"),
    [
        ("TFText>NoSuchThing", "part of TensorFlow Text"),
        ("SimpleMLNoSuchThing", "part of Decision Forests"),
        ("NoSuchThing", "has no operation 'NoSuchThing'"),
    ],
)
def test_what_is_missing_and_what_to_do_is_reported(
    model_server: Any, tmp_path: Path, operation: str, next_step: str
) -> None:
    """The status has TensorFlow's words alone; the server's own page says what to do as well."""
    save(tmp_path / "text" / "1", "Identity")
    server = model_server(model_base_path=str(tmp_path / "text"), **NO_RETRIES)
    save(tmp_path / "new" / "2", operation)
    (tmp_path / "new" / "2").rename(tmp_path / "text" / "2")
    row = _ended(url_of(server), 2)
    status = requests.get(f"{url_of(server)}/v1/models/default/versions/2", timeout=5).json()["model_version_status"][0]
    reported = status["status"]["error_message"]
    assert reported.startswith(f"Op type not registered '{operation}' in binary")
    assert next_step not in reported
    assert row["error"].startswith(reported)
    assert next_step in row["error"]


def _ended(url: str, version: int) -> dict[str, Any]:
    """What the server's page says of a version, once it is loaded or given up."""
    deadline = time.monotonic() + 30
    while True:
        rows = requests.get(f"{url}/hotswap/models", timeout=5).json()["models"]
        found: list[dict[str, Any]] = [row for row in rows if (row["version"], row["state"]) == (version, "END")]
        if found:
            return found[0]
        assert time.monotonic() < deadline, rows
        time.sleep(0.02)
