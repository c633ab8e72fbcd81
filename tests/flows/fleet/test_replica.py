"""The models directory of a host: its agent changes it, and no command does."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from flows.reports.doctor import examine
from flows.settings import Settings
from serving.repository.replica import Replica
from tests.faults.points import environment
from tests.pipelines import examine_without_server
from tests.processes import hotswap

MODEL = "tiny"


@pytest.fixture
def settings(in_mlflow_home: Path, tiny_model: Any, tmp_path: Path) -> Settings:
    """Of a host whose agent has fetched version 2, and has version 1 taken out."""
    replica = Replica(tmp_path / "replica")
    replica.claim()
    replica.follow("of-another-host")
    tiny_model(replica.base_path(MODEL), 1)
    tiny_model(replica.base_path(MODEL), 2)
    replica.retire(MODEL, 1)
    return Settings(home=in_mlflow_home, models_repo=replica.root, rest_port=1, grpc_port=2)


@pytest.mark.parametrize(
    "command",
    [
        "train iris",
        f"promote {MODEL} --saved-model SAVED_MODEL --unevaluated reason",
        f"label {MODEL} stable 2",
        f"label {MODEL} canary --remove",
        f"rollback {MODEL}",
        f"retire {MODEL} 2 --force reason",
        f"restore {MODEL} 1",
        f"tidy {MODEL}",
        f"remove {MODEL} --force reason",
        "reconcile",
        f"reconcile {MODEL}",
        "backup ARCHIVE",
    ],
)
def test_no_command_changes_what_an_agent_keeps(command: str, settings: Settings, tmp_path: Path) -> None:
    """It ends with one sentence and the next step, and nothing is another."""
    saved_model = shutil.copytree(settings.models_repo / MODEL / "2", tmp_path / "saved_model")
    words = command.replace("SAVED_MODEL", str(saved_model)).replace("ARCHIVE", str(tmp_path / "archive.tar.gz"))
    before = contents(settings.models_repo)
    done = hotswap({**os.environ, **environment(settings)}, *words.split(), directory=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    told = " ".join(done.stderr.split())
    assert f"hotswap: {settings.models_repo} follows a repository elsewhere, and only its `hotswap agent`" in told
    assert "run this command where that repository is" in told
    assert contents(settings.models_repo) == before


def test_doctor_tells_what_the_agent_cannot_get(settings: Settings) -> None:
    """And finds nothing else: what should be live is compared where the repository is."""
    assert examine_without_server(settings) == []
    Replica(settings.models_repo).write_problems({MODEL: {3: "the disk is full"}})
    (found,) = [each for each in examine(settings) if each.model == MODEL]
    assert found.what == "version 3 cannot be fetched: the disk is full"
    assert found.next_step == "see the log of `hotswap agent` here"


def contents(root: Path) -> dict[str, tuple[int, int]]:
    """Every file and directory, with its size and when it was changed."""
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in root.rglob("*")}
