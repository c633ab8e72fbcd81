"""How soon do `hotswap status`, `history` and `explain` answer when there is much to remember?"""

from __future__ import annotations

import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from flows.journal import START, next_record
from flows.settings import Settings, apply_environment
from serving.repository.model_config import ModelEntry, render
from serving.repository.saved_model_files import digest
from serving.repository.stamp import Stamp
from serving.repository.store import Repository
from serving.repository.version_policy import All
from tests.benchmarks.report import Measurement
from tests.conftest import build_tiny_model

_VERSIONS = 1000
_LINES = 10_000
_REPETITIONS = 5
_TURNS = 20
_PUBLISHED = range(_VERSIONS - 4, _VERSIONS + 1)
_MODEL = "tiny"


def measure() -> list[Measurement]:
    """1,000 registered versions, 10,000 lines of journal, 5 versions published; no server, as the tables need none."""
    with tempfile.TemporaryDirectory() as directory:
        settings = Settings(
            home=Path(directory) / "home", models_repo=Path(directory) / "models", rest_port=1, grpc_port=2
        )
        before = dict(os.environ)
        for name in ("MLFLOW_TRACKING_URI", "HOTSWAP_HOME", "HOTSWAP_MODELS_REPO"):
            os.environ.pop(name, None)
        apply_environment(settings)
        os.environ.update(HOTSWAP_REST_PORT="1", HOTSWAP_GRPC_PORT="2")
        try:
            _fill(settings)
            besides = f"{_VERSIONS:,} versions, {_LINES:,} lines of journal"
            commands = (["status", _MODEL], ["history", _MODEL], ["explain", _MODEL, str(_VERSIONS)])
            found = [
                Measurement(f"`hotswap {command[0]}`", _seconds(command), "s", at_most=1.5, besides=besides)
                for command in commands
            ]
            found.append(
                Measurement("reconcile turn with nothing to do, work", _turn_seconds(settings), "s", at_most=0.2)
            )
            return found
        finally:
            os.environ.clear()
            os.environ.update(before)


def _fill(settings: Settings) -> None:
    from flows.registry.mlflow_registry import Registry

    registry = Registry(settings.home / "artifacts")
    registry.check()
    run_id = registry.start_run(_MODEL, "run", {}, {}).id
    repository = Repository(settings.models_repo)
    source = settings.models_repo.parent / "source"
    build_tiny_model(source, 1)
    content = digest(source)
    for version in _PUBLISHED:
        stamp = Stamp(version=version, run_id=run_id, digest=content, metrics={"test_accuracy": 0.9})
        repository.publish(_MODEL, version, repository.stage(_MODEL, version, source, stamp))
    _fill_registry(settings.home / "mlflow.db", run_id, content)
    _fill_journal(settings.models_repo / ".journal" / f"{_MODEL}.jsonl", run_id, content)
    entry = ModelEntry(_MODEL, str(repository.base_path(_MODEL)), All(), {"stable": _VERSIONS})
    repository.write_config(render([entry]))


def _fill_registry(path: Path, run_id: str, content: str) -> None:
    """Written to the tables directly: so many calls would take minutes."""
    tags = [("hotswap.promotion", "promoted"), ("hotswap.digest", content)]
    with closing(sqlite3.connect(path)) as file, file:
        file.execute("INSERT INTO registered_models (name, creation_time) VALUES (?, 0)", (_MODEL,))
        file.executemany(
            "INSERT INTO model_versions (name, version, creation_time, current_stage, source, run_id, status) "
            "VALUES (?, ?, 0, 'None', 's', ?, 'READY')",
            [(_MODEL, version, run_id) for version in range(1, _VERSIONS + 1)],
        )
        file.executemany(
            "INSERT INTO model_version_tags (name, version, key, value) VALUES (?, ?, ?, ?)",
            [(_MODEL, version, *tag) for version in range(1, _VERSIONS + 1) for tag in tags],
        )
        file.execute(
            "INSERT INTO registered_model_aliases (alias, version, name) VALUES ('champion', ?, ?)", (_VERSIONS, _MODEL)
        )


def _fill_journal(path: Path, run_id: str, content: str) -> None:
    """The lines that as many calls of `Journal.append` would write, which reads the whole file each time."""
    path.parent.mkdir(parents=True)
    before = START
    with path.open("w", encoding="utf-8") as file:
        for number in range(_LINES):
            action, version = ("publish", "promote")[number % 2], _PUBLISHED[number // 2 % len(_PUBLISHED)]
            facts = {"version": version, "label": "stable", "run_id": run_id, "digest": content}
            record = next_record(before, action, facts)
            file.write(json.dumps(record) + "\n")
            before = record["hash"]


def _seconds(arguments: list[str]) -> float:
    command = [sys.executable, "-m", "flows.cli", *arguments, "--json"]
    taken = []
    for _ in range(_REPETITIONS):
        started = time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60, check=True)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def _turn_seconds(settings: Settings) -> float:
    from flows.local.reconciler import Reconciler

    reconciler = Reconciler(settings)
    reconciler.turn()
    started = time.process_time()
    for _ in range(_TURNS):
        reconciler.turn()
    return (time.process_time() - started) / _TURNS
