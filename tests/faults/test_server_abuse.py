"""What a server must bear without making anybody else wait."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import requests

from serving.repository.model_config import ModelEntry, render
from serving.repository.version_policy import All
from serving.rest.off_loop import MAX_INLINE_PARSE_BYTES
from tests.faults.bystander import ROW, undisturbed

HUGE_BYTES = MAX_INLINE_PARSE_BYTES + 2**20
"""more than is read on the loop"""


@pytest.fixture
def base_path(tiny_model: Any, tmp_path: Path) -> Path:
    tiny_model(tmp_path / "tiny", 1)
    return tmp_path / "tiny"


@pytest.fixture
def url(base_path: Path, model_server: Any) -> str:
    """The address of a server that serves every version, and tries a broken one once."""
    config = base_path.parent / "models.config"
    config.write_text(render([ModelEntry("tiny", str(base_path), All())]))
    server = model_server(model_config_file=config, max_num_load_retries=0)
    return f"http://127.0.0.1:{server.rest_port}/v1/models/tiny"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"instances": [1,]}', "JSON Parse error: Invalid value. at offset: 17"),
        (b" " * HUGE_BYTES, "The document is empty"),
        (b'{"instances": [' + b"[1.0, 2.0, 3.0, 4.0]," * (HUGE_BYTES // 21), "JSON Parse error"),
        (b'{"instances": "' + b"x" * HUGE_BYTES + b'"}', "Expecting 'instances' to be an list/array"),
        (b'{"instances": [[1.0], [2.0, 3.0]]}', "Expecting tensor size: 1 but got: 2"),
        (b'{"inputs": {"other": [[1.0]]}}', "Missing named input: input"),
    ],
    ids=["unparsable", "9 MB of nothing", "9 MB cut off", "9 MB of text", "wrong shape", "wrong name"],
)
def test_a_bad_request_is_reported_and_disturbs_nobody(url: str, body: bytes, told: str) -> None:
    """The answer is a clear 400, however large the request, and others are answered meanwhile."""
    with undisturbed(url):
        answer = requests.post(f"{url}:predict", data=body, timeout=120)
    assert answer.status_code == 400
    assert told in answer.json()["error"]


def test_an_unknown_version_is_not_found(url: str) -> None:
    """Asking for what is not there is a 404 that names it."""
    answer = requests.post(f"{url}/versions/9:predict", json=ROW, timeout=10)
    assert (answer.status_code, answer.json()["error"]) == (404, "Servable not found for request: Specific(tiny, 9)")


@pytest.mark.parametrize("kind", ["empty directory", "plain file", "cut off graph", "cut off variables", "no number"])
def test_what_is_dropped_in_by_hand_and_broken_leaves_the_old_version_live(
    url: str, base_path: Path, tiny_model: Any, kind: str
) -> None:
    """The broken version is told in the status, and version 1 goes on answering."""
    with undisturbed(url):
        name = "2" if kind != "no number" else "2.partial"
        if kind == "plain file":
            (base_path / name).write_text("not a model")
        elif kind in ("empty directory", "no number"):
            (base_path / name).mkdir()
        else:
            model = tiny_model(base_path.parent / "elsewhere", 2)
            broken = "saved_model.pb" if kind == "cut off graph" else "variables/variables.index"
            (model / broken).write_bytes((model / broken).read_bytes()[:20])
            model.rename(base_path / name)
        tiny_model(base_path, 3)
        expected = {"1": "AVAILABLE", "3": "AVAILABLE"} | ({} if kind == "no number" else {"2": "END"})
        assert _states_when(url, expected) == expected


def _states_when(url: str, expected: dict[str, str]) -> dict[str, str]:
    """The states of all versions, once they are as expected or have had the time for it."""
    deadline = time.monotonic() + 15
    while True:
        rows = requests.get(url, timeout=10).json()["model_version_status"]
        states = {row["version"]: row["state"] for row in rows}
        if states == expected or time.monotonic() > deadline:
            return states
