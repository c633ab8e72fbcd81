"""``hotswap logs``: what the processes of ``hotswap up`` have written."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.processes import hotswap, running, without_settings


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """The directory of the logs of a home, with those of two services and one that is of none."""
    directory = tmp_path / "home" / "logs"
    directory.mkdir(parents=True)
    (directory / "model-server.log").write_text("loading\nserving\n")
    (directory / "worker.log").write_text("waiting\n")
    (directory / "terminal.log").write_text("nothing of a service\n")
    return directory


@pytest.fixture
def environment(logs: Path) -> dict[str, str]:
    return {**without_settings(), "HOTSWAP_HOME": str(logs.parent)}


def test_the_last_lines_of_each_process_are_shown(environment: dict[str, str]) -> None:
    """Of one alone they are as they were written, of several each has its name; an unknown one is named."""
    assert hotswap(environment, "logs", "model-server", "-n", "1").stdout == "serving\n"
    assert hotswap(environment, "logs", "-n", "1").stdout == "model-server | serving\nworker       | waiting\n"
    as_json = hotswap(environment, "logs", "model-server", "-n", "1", "--json")
    assert json.loads(as_json.stdout) == {"model-server": ["serving"]}
    unknown = hotswap(environment, "logs", "nobody")
    assert unknown.returncode == 2
    assert "there is no log of 'nobody'; there are model-server, worker" in unknown.stderr


def test_what_is_added_is_followed(environment: dict[str, str], logs: Path) -> None:
    """Until Ctrl-C."""
    following = running(environment, "logs", "worker", "--follow")
    assert following.stdout.readline() == "waiting\n"
    with (logs / "worker.log").open("a") as log:
        log.write("training\n")
    assert following.stdout.readline() == "training\n"
    following.send_signal(signal.SIGINT)
    following.communicate()
    assert following.returncode == 130
