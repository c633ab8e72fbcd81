"""Other databases of MLflow than the one that a model was registered in."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import mlflow

from tests.pipelines import Pipeline


@functools.cache
def _new_database() -> bytes:
    """What MLflow makes at its first use, which takes seconds."""
    with tempfile.TemporaryDirectory() as directory:
        mlflow.MlflowClient(f"sqlite:///{directory}/new.db").search_experiments()
        return (Path(directory) / "new.db").read_bytes()


def another_database_with_tables(offline: Pipeline, directory: Path) -> str:
    (directory / "another.db").write_bytes(_new_database())
    return f"sqlite:///{directory}/another.db"


def another_database_with_such_a_model(offline: Pipeline, directory: Path) -> str:
    address = another_database_with_tables(offline, directory)
    client = mlflow.MlflowClient(address)
    client.create_registered_model(offline.model)
    run = client.create_run("0").info.run_id
    for _ in range(2):
        client.create_model_version(offline.model, str(directory), run_id=run)
    client.set_registered_model_alias(offline.model, "champion", "1")
    return address
