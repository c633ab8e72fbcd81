"""No command shows a secret, whatever is down: not on its streams, not in a file of its home, not in the journal."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest

from flows.machine.processes import Process
from flows.promotion.labels import Labels
from serving.repository.store import Repository
from tests.processes import hotswap, without_settings

SECRET = "hunter-2-of-7"
TOKEN = "token-9-of-11"
COMMANDS = (
    ["status"],
    ["doctor"],
    ["reconcile"],
    ["reconcile", "--json"],
    ["explain", "tiny", "3"],
    ["history", "tiny"],
    ["label", "tiny", "canary", "3"],
    ["rollback", "tiny"],
    ["predict", "tiny", "1,2,3,4"],
    ["train", "iris"],
)
ADDRESSES = {
    "MLFLOW_TRACKING_URI": f"http://ada:{SECRET}@127.0.0.1:1",
    "MLFLOW_REGISTRY_URI": f"postgresql://ada:{SECRET}@127.0.0.1:1/mlflow?sslpassword={SECRET}",
    "MLFLOW_TRACKING_TOKEN": TOKEN,
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "PREFECT_API_URL": f"http://ada:{SECRET}@127.0.0.1:1/api",
    "PREFECT_API_AUTH_STRING": f"ada:{SECRET}",
    "HOTSWAP_SERVING_ENDPOINTS": f"http://ada:{SECRET}@127.0.0.1:1 127.0.0.1:1",
    "AWS_SECRET_ACCESS_KEY": TOKEN,
}


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_command_shows_a_secret_when_everything_is_down(command: list[str], tiny_model: Any, tmp_path: Path) -> None:
    """Passwords in every address, and tokens, while nobody answers at any of them."""
    tiny_model(tmp_path / "models" / "tiny", 3)
    Labels(Repository(tmp_path / "models"), "tiny").write({})
    paths = {"HOTSWAP_HOME": str(tmp_path / "home"), "HOTSWAP_MODELS_REPO": str(tmp_path / "models")}
    done = hotswap({**without_settings(), **paths, **ADDRESSES, "HOTSWAP_SERVER_TIMEOUT_SECONDS": "1"}, *command)
    assert done.stdout + done.stderr
    texts = [done.stdout, done.stderr]
    for directory in ("home", "models/.journal"):
        texts += [file.read_text("utf-8", "replace") for file in (tmp_path / directory).rglob("*") if file.is_file()]
    for text in texts:
        assert SECRET not in text
        assert TOKEN not in text


def test_the_log_of_a_process_shows_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of another's program as well; its last words are there as soon as it has ended, whatever they were."""
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRET)
    code = (
        "import os, sys; print('at http://ada:hidden@db', flush=True);"
        "sys.stderr.write('refused: ' + os.environ['MLFLOW_TRACKING_PASSWORD'] + ' again')"
    )
    process = Process("page", [sys.executable, "-c", code], tmp_path, redact=True)
    process.end(time.monotonic() + 30)
    assert process.last_lines == "at http://ada:***@db\nrefused: *** again"
