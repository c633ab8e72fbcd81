"""What earlier releases left: the databases of older MLflow and Prefect, and a repository as we wrote it first."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from flows.journal import START, Journal, next_record
from serving.repository.stamp import STAMP_FILE, Stamp
from serving.repository.store import Repository
from tests.processes import forked

MLFLOW_REVISION = "bda7b8c39065"
"""MLflow's tables of June 2025: with logged models, without traces of version 3, evaluation data sets and workspaces"""
PREFECT_REVISION = "2095de406cbe"
"""Prefect's tables of May 2026"""
_EARLIER_FACTS = ("version", "previous", "run_id", "digest")


def older_mlflow(database: Path) -> None:
    """Bring a database to tables of an earlier release of MLflow, made by its own migrations, with the same rows."""
    import alembic.command
    from mlflow.store.db.utils import _get_alembic_config, create_sqlalchemy_engine
    from mlflow.store.tracking.dbmodels.initial_models import Base

    later = database.rename(database.with_suffix(".later"))
    engine = create_sqlalchemy_engine(f"sqlite:///{database}")
    Base.metadata.create_all(engine)
    config = _get_alembic_config(f"sqlite:///{database}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, MLFLOW_REVISION)
    engine.dispose()
    with closing(sqlite3.connect(database)) as file, file:
        file.execute("ATTACH ? AS later", (str(later),))
        for (table,) in file.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'").fetchall():
            if table != "alembic_version":
                _copy_rows(file, table)
    later.unlink()


def older_prefect(environment: Mapping[str, str]) -> None:
    """Bring the database of a Prefect home to the tables of an earlier release, by Prefect's own migrations."""
    done = forked(environment, _downgrade_prefect)
    assert done.returncode == 0, done.stderr


def _downgrade_prefect() -> None:
    import anyio
    import anyio.to_thread
    from prefect.server.database.alembic_commands import alembic_downgrade

    async def downgrade() -> None:
        await anyio.to_thread.run_sync(alembic_downgrade, PREFECT_REVISION)

    anyio.run(downgrade)


def older_repository(repository: Repository, model: str) -> None:
    """Write stamps, journal and identity as our first releases did: one input and output, no labels, no identity."""
    for version in repository.versions(model):
        directory = repository.path(model, version)
        stamp = Stamp.read(directory)
        assert stamp is not None
        assert stamp.golden is not None
        (inputs,), (outputs,) = stamp.golden.inputs.values(), stamp.golden.outputs.values()
        earlier = {**stamp.encode(), "golden": {"inputs": inputs.tolist(), "outputs": outputs.tolist()}}
        (directory / STAMP_FILE).write_text(json.dumps(earlier))
    journal = Journal(repository.root, model)
    lines, before = [], START
    for entry in journal.read():
        facts = {name: entry.facts[name] for name in _EARLIER_FACTS if name in entry.facts}
        lines.append(record := next_record(before, entry.action, facts))
        before = record["hash"]
    journal.path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (repository.root / ".repository.json").unlink()


def _copy_rows(file: sqlite3.Connection, table: str) -> None:
    here, later = (
        [row[1] for row in file.execute(f"PRAGMA {where}.table_info({table})")] for where in ("main", "later")
    )
    columns = ", ".join(column for column in here if column in later)
    file.execute(f"INSERT OR REPLACE INTO main.{table} ({columns}) SELECT {columns} FROM later.{table}")
