"""The worker by its own program; in other tests what it starts is forked from what has imported everything."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from tests.docs.pages import PROJECT, isolated_environment
from tests.waiting import until


def test_it_waits_for_prefect_until_it_is_told_to_end(tmp_path: Path) -> None:
    environment = isolated_environment(HOTSWAP_HOME=str(tmp_path / "home"))
    command = [sys.executable, "-m", "flows.worker"]
    with subprocess.Popen(command, env=environment, cwd=PROJECT, stderr=subprocess.PIPE, text=True) as worker:
        until((tmp_path / "home" / "logs").is_dir)
        worker.send_signal(signal.SIGTERM)
        assert worker.communicate(timeout=30)[1] == ""
    assert worker.returncode == 0


def test_what_its_processes_are_forked_with_can_be_imported_alone() -> None:
    subprocess.run([sys.executable, "-c", "import flows.worker.preloaded"], cwd=PROJECT, check=True)
