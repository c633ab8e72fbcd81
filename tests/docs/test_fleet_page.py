"""The page on many hosts, as somebody works through it with one host on this machine."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clients import RestClient
from serving.protocol.errors import ServingError
from tests.docs.pages import DOCS, blocks, isolated_environment
from tests.faults.restartable import mlflow_server
from tests.waiting import until

PAGE = DOCS / "how-to" / "fleet.md"


def script(block: str, *places: tuple[str, str]) -> str:
    """The commands of a block of the page, with what stands here for its addresses and directories."""
    text = re.sub(r"^\$ ", "", block, flags=re.MULTILINE)
    for there, here in places:
        assert there in text
        text = text.replace(there, here)
    return text


@contextmanager
def running(commands: str, directory: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A shell that works through commands, with all that it starts, during the block."""
    with (directory / "host.log").open("wb") as log:
        shell = subprocess.Popen(
            ["bash", "-ec", commands], cwd=directory, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield shell
    finally:
        os.killpg(shell.pid, signal.SIGTERM)
        shell.wait(60)


@pytest.mark.soak
@pytest.mark.xdist_group("mlflow-server")
def test_the_page_on_hosts_is_what_happens(tmp_path: Path, furnish: Callable[[Path], None], prefect_api: str) -> None:
    """What its commands train is live on the host, which has only MLflow's address."""
    host, trainer, home = (tmp_path / name for name in ("host", "trainer", "mlflow"))
    for directory in (host, trainer):
        directory.mkdir()
        (directory / ".venv").symlink_to(sys.prefix)
    furnish(home)
    furnish(trainer / ".hotswap")
    mlflow = mlflow_server(home)
    on_host, on_trainer = blocks(PAGE, "console")
    environment = isolated_environment()
    rest, grpc = environment["HOTSWAP_REST_PORT"], environment["HOTSWAP_GRPC_PORT"]
    place = ("http://mlflow.example:5000", mlflow.url)
    both = "http://10.0.0.1:8501 10.0.0.1:8500, http://10.0.0.2:8501 10.0.0.2:8500"
    endpoints = (both, f"http://127.0.0.1:{rest} 127.0.0.1:{grpc}")
    try:
        with (
            running(script(on_host, place, ("/srv/models", str(host / "models"))), host, environment),
            RestClient(f"http://127.0.0.1:{rest}") as client,
        ):
            until(lambda: is_up(client), seconds=90)
            done = subprocess.run(
                ["bash", "-ec", script(on_trainer, place, endpoints)],
                cwd=trainer,
                env={**environment, "PREFECT_API_URL": prefect_api},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr + (host / "host.log").read_text()
            assert client.predict("iris", [[5.1, 3.5, 1.4, 0.2]], label="stable").version == 1
    finally:
        mlflow.kill()
    assert not (host / "models" / "iris" / "1").samefile(trainer / "models_repo" / "iris" / "1")


def is_up(client: RestClient) -> bool:
    """Whether the server of the host answers."""
    try:
        return client.served() is not None
    except ServingError:
        return False
