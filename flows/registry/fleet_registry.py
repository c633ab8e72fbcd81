"""
What a publish agent asks MLflow: what the hosts must have, and the files of a registered version.

Agents ask often and there are many of them, so a look reads only the models that have changed lately; now and then all
of them are read, as a change may fall into the same millisecond as the look before.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath
from typing import Any

from flows.registry import mlflow_access
from flows.registry.mlflow_errors import RegistryError
from flows.registry.pyfunc_arguments import SAVED_MODEL
from flows.registry.statement import STAMP, STATEMENT
from serving.repository.stamp import Stamp

_RECENT, _PAGE = 20, 1000
_WHOLE_SECONDS = 60.0


class FleetRegistry:
    """MLflow, as the hosts of a fleet read it."""

    def __init__(self) -> None:
        self._address = mlflow_access.registry_address()
        self._client: Any = None
        self._changed_at: dict[str, int] = {}
        self._whole_at = float("-inf")

    def changed_statements(self) -> Mapping[str, str]:
        """
        The statements of the models that have changed since the last look, by model; now and then of all.

        Raises:
            RegistryError: MLflow cannot be read; what is known stays.
        """
        with self._translated():
            found = dict(self._changed())
        self._changed_at |= {model: entry.last_updated_timestamp for model, entry in found.items()}
        return {model: entry.tags[STATEMENT] for model, entry in found.items() if STATEMENT in entry.tags}

    def files_of(self, model: str, version: int) -> RegisteredFiles:
        """
        Where the files of a version are.

        Raises:
            RegistryError: MLflow cannot be read, or does not know the version.
        """
        with self._translated():
            client = self._connected()
            entry = client.get_model_version(model, str(version))
            source = client.get_model_version_download_uri(model, str(version))
        stamp = Stamp.decode(json.loads(entry.tags.get(STAMP, "{}")))
        return RegisteredFiles(f"{source}/artifacts/{SAVED_MODEL}", stamp)

    def _changed(self) -> Iterator[tuple[str, Any]]:
        is_whole = time.monotonic() - self._whole_at > _WHOLE_SECONDS
        started = time.monotonic()
        page: Any = None
        while True:
            found = self._connected().search_registered_models(
                max_results=_PAGE if is_whole else _RECENT, order_by=["last_updated_timestamp DESC"], page_token=page
            )
            news = [each for each in found if self._changed_at.get(each.name) != each.last_updated_timestamp]
            yield from ((each.name, each) for each in (found if is_whole else news))
            if not (page := found.token) or (not is_whole and len(news) < len(found)):
                break
        self._whole_at = started if is_whole else self._whole_at

    def _connected(self) -> Any:
        if self._client is None:
            self._client = mlflow_access.connect("read")
        return self._client

    def _translated(self) -> AbstractContextManager[None]:
        return mlflow_access.translated(self._address, "read")


class RegisteredFiles:
    """The SavedModel of a registered version in the artifact store."""

    def __init__(self, uri: str, stamp: Stamp) -> None:
        """`stamp` is what publish has kept with the version, as far as hosts need it."""
        mlflow_access.import_mlflow()
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        self.stamp = stamp
        self._uri = uri
        with self._translated():
            self._store = get_artifact_repository(uri)

    def sizes(self) -> dict[str, int]:
        """
        The bytes of every file, by its path in the SavedModel.

        Raises:
            RegistryError: The artifact store cannot be read, or names a file that would be outside of its directory.
        """
        with self._translated():
            sizes = dict(self._listed(None))
        if outside := [
            path for path in sizes if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts
        ]:
            raise RegistryError(f"MLflow's artifact store has a file called {outside[0]!r}, which no SavedModel has")
        return sizes

    def download(self, path: str, directory: Path) -> None:
        """
        Copy one file to its place below `directory`.

        Raises:
            RegistryError: The artifact store cannot be read, or the file not be written.
        """
        directory.mkdir(parents=True, exist_ok=True)
        with self._translated():
            self._store.download_artifacts(path, dst_path=str(directory))

    def _listed(self, directory: str | None) -> Iterator[tuple[str, int]]:
        for entry in self._store.list_artifacts(directory):
            if entry.is_dir:
                yield from self._listed(entry.path)
            else:
                yield entry.path, int(entry.file_size)

    def _translated(self) -> AbstractContextManager[None]:
        return mlflow_access.translated(self._uri, "read")
