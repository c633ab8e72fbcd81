"""
The copy of a training's checkpoint among the artifacts of its MLflow run, for a training that goes on elsewhere.

Each copy is a directory of its own below ``checkpoint/``, named after the time. The newest whole one counts: a copy is
whole when it has what the training was asked for, which is written last.
"""

from __future__ import annotations

import shutil
import time
from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from flows.registry import mlflow_access
from flows.training.checkpoints import REQUEST, STATE

_DIRECTORY = "checkpoint"


class RunCheckpoints:
    """The checkpoint copies of one run."""

    def __init__(self, client: Any, address: str, run_id: str) -> None:
        self._client = client
        self._address = address
        self._run_id = run_id

    def keep(self, directory: Path) -> None:
        """
        Copy the checkpoint `directory`, and drop the copies before.

        Raises:
            RegistryError: MLflow or its artifacts cannot be written.
        """
        with self._translated():
            before = self._copies()
            name = f"{_DIRECTORY}/{time.time_ns():020d}"
            self._client.log_artifacts(self._run_id, str(directory / STATE), f"{name}/{STATE}")
            self._client.log_artifact(self._run_id, str(directory / REQUEST), name)
            self._delete(before)

    def drop(self) -> None:
        """
        Remove all copies: the training has ended well.

        Raises:
            RegistryError: MLflow or its artifacts cannot be written.
        """
        with self._translated():
            if copies := self._copies():
                self._delete([*copies, _DIRECTORY])

    def fetch(self, directory: Path) -> bool:
        """
        Put the newest whole copy at `directory`, which does not exist; whether there is one.

        Raises:
            RegistryError: MLflow or its artifacts cannot be read.
        """
        with self._translated():
            for name in reversed(self._copies()):
                if any(each.path == f"{name}/{REQUEST}" for each in self._client.list_artifacts(self._run_id, name)):
                    self._download(name, directory)
                    return True
        return False

    def _download(self, name: str, directory: Path) -> None:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".fetched-", dir=directory.parent) as parts:
            found = mlflow.artifacts.download_artifacts(
                run_id=self._run_id, artifact_path=name, dst_path=parts, tracking_uri=self._address
            )
            shutil.move(found, directory)

    def _copies(self) -> list[str]:
        """Oldest first."""
        try:
            return sorted(each.path for each in self._client.list_artifacts(self._run_id, _DIRECTORY) if each.is_dir)
        except MlflowException as exc:
            if exc.error_code == "RESOURCE_DOES_NOT_EXIST":
                return []
            raise

    def _delete(self, names: list[str]) -> None:
        kept_at = get_artifact_repository(self._client.get_run(self._run_id).info.artifact_uri, self._address)
        for name in names:
            kept_at.delete_artifacts(name)

    def _translated(self) -> AbstractContextManager[None]:
        return mlflow_access.translated(self._address, "used")
