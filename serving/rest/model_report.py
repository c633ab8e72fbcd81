"""
Writes the page ``/hotswap/models``: which repository this server serves, and every version with its state.

TensorFlow Serving has no such page. By it a command knows whose server it meets, and what is live.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

import orjson

from serving.inference.data_plane import DataPlane
from serving.protocol.model_spec import ModelSpec
from serving.protocol.unknown_operations import explained
from serving.protocol.version_status import VersionStatus
from serving.repository.identity import is_same_directory
from serving.repository.replica import read_problems
from serving.repository.stamp import Stamp
from serving.rest.http_messages import Response
from serving.runtime.servable import Servable


async def report_page(data_plane: DataPlane) -> Response:
    """The page."""
    repository = await data_plane.models.repository()
    rows = [row for model in data_plane.models.names() for row in _rows(data_plane, model)]
    problems: dict[str, dict[str, str]] = {}
    if repository is not None:
        await asyncio.to_thread(_add_places, rows, data_plane.models.base_paths(), Path(repository.path))
        problems = await asyncio.to_thread(read_problems, Path(repository.path))
    page = {
        "server": data_plane.id,
        "repository": repository,
        "default_version_label": data_plane.settings.default_version_label or None,
        "not_fetched": problems,
        "models": rows,
    }
    return Response(HTTPStatus.OK, orjson.dumps(page, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def _rows(data_plane: DataPlane, model: str) -> list[dict[str, Any]]:
    """A row for each version of a model."""
    labels, problem = data_plane.models.labels(model), data_plane.models.problem(model)
    rows = []
    for status in data_plane.models.status(ModelSpec(model)):
        own_labels = sorted(label for label, version in labels.items() if version == status.version)
        servable = data_plane.models.servable(model, status.version)
        row = _state(model, status, problem) | {"labels": own_labels} | _servable(servable)
        rows.append(row | {"signatures": {} if servable is None else data_plane.merging(servable)})
    return rows


def _state(model: str, status: VersionStatus, problem: str) -> dict[str, Any]:
    return {
        "model": model,
        "version": status.version,
        "state": status.state.name,
        "error": explained(status.message) or problem,
    }


def _servable(servable: Servable | None) -> dict[str, Any]:
    if servable is None:
        return {"digest": None, "run_id": None, "path": None, "requests": 0, "errors": 0}
    stamp = Stamp.read(servable.path) or Stamp()
    return {
        "digest": stamp.digest,
        "run_id": stamp.run_id,
        "path": str(servable.path),
        "requests": servable.usage.requests,
        "errors": servable.usage.errors,
    }


def _add_places(rows: Sequence[dict[str, Any]], base_paths: Mapping[str, Path], repository: Path) -> None:
    """Add to each row where its versions are looked for, and whether that and what is loaded is of `repository`."""
    for row in rows:
        path, base_path = row["path"], base_paths.get(row["model"])
        own = repository / row["model"]
        row["in_repository"] = None if path is None else is_same_directory(Path(path).parent, own)
        row["base_path"] = None if base_path is None else str(base_path)
        row["base_path_in_repository"] = None if base_path is None else is_same_directory(base_path, own)
