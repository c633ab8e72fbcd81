"""
What does each part of a fleet cost with 1,000 models of 50 versions, 200 replicas and 100 trainings a day?

The registry, the directory of a host and the repository are as large as that. Replicas are one server that is asked as
200, and each published version has a stamp alone: nothing is loaded. What docs/scaling.md multiplies is measured here.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

from flows.endpoints.servers import Servers
from flows.fleet.agent import Agent
from flows.promotion.deployment import Deployment
from flows.reconciliation.findings import find
from flows.registry.fleet_registry import FleetRegistry
from flows.registry.mlflow_registry import Registry
from flows.registry.statement import STATEMENT, Statement
from flows.settings import Settings
from serving.repository.model_config import ModelEntry, parse, render
from serving.repository.replica import Replica
from serving.repository.stamp import Stamp
from serving.repository.store import Repository
from serving.repository.version_policy import All
from serving.server import Server
from serving.settings import ServerSettings
from tests.benchmarks.report import Measurement
from tests.conftest import at_home
from tests.faults.restartable import mlflow_server

MODELS, VERSIONS, PUBLISHED, REPLICAS = 1000, 50, 5, 200
_REPETITIONS = 5
_SOME = 20
"""models whose reconcile turn is timed"""


def measure() -> list[Measurement]:
    """Everything on this machine, with SQLite under MLflow."""
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory) / "home"
        settings = Settings(home=home, models_repo=Path(directory) / "models", rest_port=1, grpc_port=2, fleet=True)
        with at_home(home):
            Registry(home / "artifacts").check()
            repository = Repository(settings.models_repo)
            repository.check_writable()
            _fill_directory(repository)
            _fill_registry(home / "mlflow.db", repository)
            found = [*_registry(), *_reconciliation(settings, "SQLite")]
            with _server(home):
                through = "through MLflow's server"
                found += [*_registry(through), *_reconciliation(settings, through)]
            return [*found, *_host(repository, Path(directory) / "host"), *_servers()]


@contextmanager
def _server(home: Path) -> Iterator[None]:
    """During the block MLflow is asked through a server of its own."""
    server, before = mlflow_server(home), os.environ["MLFLOW_TRACKING_URI"]
    os.environ["MLFLOW_TRACKING_URI"] = server.url
    try:
        yield
    finally:
        os.environ["MLFLOW_TRACKING_URI"] = before
        server.kill()


def _registry(besides: str = "SQLite") -> Iterator[Measurement]:
    registry = FleetRegistry()
    yield Measurement("an agent's look at all models", _seconds(registry.changed_statements), "s", besides=besides)
    recent = _milliseconds(registry.changed_statements)
    yield Measurement("an agent's look at what has changed", recent, "ms", besides=besides)


def _reconciliation(settings: Settings, besides: str) -> Iterator[Measurement]:
    turns = [_seconds(partial(find, Deployment(settings, _name(number)))) for number in range(_SOME)]
    median = statistics.median(turns) * 1000
    yield Measurement("a reconcile turn of one model", median, "ms", besides=f"no model server; {besides}")


def _host(repository: Repository, host: Path) -> Iterator[Measurement]:
    replica = Replica(host)
    _fill_directory(replica)
    agent = Agent(replica, [], 1.0, lambda turn: None, repository.identity())
    besides = f"{MODELS * PUBLISHED:,} versions are there, nothing is missing"
    yield Measurement("an agent's first turn", _seconds(agent.run_once), "s", besides=besides)
    yield Measurement("an agent's turn with nothing to do", _milliseconds(agent.turn), "ms")
    looked = _milliseconds(lambda: [replica.versions(model) for model in replica.models()])
    yield Measurement("one look at all base paths", looked, "ms", besides="what a server does at each poll")
    text = replica.read_config()
    texts = (text + "\n" * number for number in itertools.count())  # as `parse` remembers a text
    both = _milliseconds(lambda: render(parse(next(texts))))
    yield Measurement("models.config read and written", both, "ms", besides=f"{len(text) / 1000:,.0f} kB")


def _servers() -> Iterator[Measurement]:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / "models"
        repository = Repository(root)
        repository.check_writable()
        repository.write_config("model_config_list {}")
        with Server(ServerSettings(model_config_file=repository.config_path)) as server:
            one = f"http://127.0.0.1:{server.rest_port} 127.0.0.1:{server.grpc_port}"
            settings = Settings(models_repo=root, serving_endpoints=", ".join([one] * REPLICAS))
            seconds = _seconds(lambda: Servers(settings, repository).ask_first("tiny"))
    yield Measurement(f"asking {REPLICAS} replicas", seconds, "s", besides="twice in a promotion; one server is all")


def _name(number: int) -> str:
    return f"model-{number:04}"


def _statement(repository: Repository) -> Statement:
    versions = {version: f"{version:064x}" for version in range(VERSIONS - PUBLISHED + 1, VERSIONS + 1)}
    return Statement(repository.identity() or "", versions, {"stable": VERSIONS})


def _fill_directory(repository: Repository) -> None:
    """The published versions of every model, each a stamp alone, and ``models.config``."""
    entries = []
    for number in range(MODELS):
        name = _name(number)
        entries.append(ModelEntry(name, str(repository.base_path(name)), All(), {"stable": VERSIONS}))
        for version in range(VERSIONS - PUBLISHED + 1, VERSIONS + 1):
            path = repository.path(name, version)
            path.mkdir(parents=True)
            Stamp(version=version, digest=f"{version:064x}", run_id="0" * 32).write(path)
    repository.write_config(render(entries))


def _fill_registry(database: Path, repository: Repository) -> None:
    """Every version of every model, as MLflow's tables have them: its client would take minutes."""
    statement, now = _statement(repository).encode(), 1_700_000_000_000
    models = [(_name(number), now + number, now + number) for number in range(MODELS)]
    versions = [(name, version, now, "READY", "None", "0" * 32) for name, *_ in models for version in _all_versions()]
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.executemany(
            "insert into registered_models (name, creation_time, last_updated_time) values (?, ?, ?)", models
        )
        connection.executemany(
            "insert into registered_model_tags (name, key, value) values (?, ?, ?)",
            [(name, STATEMENT, statement) for name, *_ in models],
        )
        connection.executemany(
            "insert into model_versions (name, version, creation_time, status, current_stage, run_id)"
            " values (?, ?, ?, ?, ?, ?)",
            versions,
        )
        connection.executemany(
            "insert into registered_model_aliases (name, alias, version) values (?, 'champion', ?)",
            [(name, VERSIONS) for name, *_ in models],
        )


def _all_versions() -> range:
    return range(1, VERSIONS + 1)


def _seconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def _milliseconds(action: Callable[[], object]) -> float:
    return statistics.median(_seconds(action) for _ in range(_REPETITIONS)) * 1000
