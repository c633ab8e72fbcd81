"""
What does MLflow hold about a model, asked without importing MLflow?

Importing MLflow and opening its database takes longer than a person wants to wait for `hotswap status`. A local SQLite
file is read as it is, a tracking server is asked over its REST API; for anything else MLflow itself is asked.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests

from serving.errors import HotswapError

if TYPE_CHECKING:
    from flows.settings import Settings

_SQLITE = "sqlite:///"
_TIMEOUT_SECONDS = 10.0
_DELETED = "Deleted_Internal"
_PAGE = 10_000


class RegistryUnread(HotswapError):
    """MLflow cannot be read."""


@dataclass(frozen=True, slots=True)
class RegistryView:
    """One registered model."""

    aliases: Mapping[str, int] = field(default_factory=dict)
    runs: Mapping[int, str] = field(default_factory=dict)
    """the run of each registered version"""


def read_registry(settings: Settings, model: str) -> RegistryView:
    """
    Aliases and versions of `model`; empty where MLflow does not know it.

    Raises:
        HotswapError: MLflow cannot be read.
    """
    uri = os.environ["MLFLOW_TRACKING_URI"]
    if uri.startswith(_SQLITE):
        return _from_sqlite(Path(uri.removeprefix(_SQLITE)), model)
    if uri.startswith("http"):
        return _from_server(uri.rstrip("/"), model)
    from flows.registry import Registry

    registry = Registry(settings.home / "artifacts")
    return RegistryView(registry.aliases(model), registry.runs(model))


def read_version_tags(settings: Settings, model: str, version: int) -> dict[str, str]:
    """What the registry keeps with one version, such as ``hotswap.digest``; empty for an unknown one."""
    uri = os.environ["MLFLOW_TRACKING_URI"]
    if uri.startswith(_SQLITE):
        query = "SELECT key, value FROM model_version_tags WHERE name = ? AND version = ?"
        return dict(_rows(Path(uri.removeprefix(_SQLITE)), query, model, version))
    if uri.startswith("http"):
        answer = _get(uri.rstrip("/"), "model-versions/get", name=model, version=version)
        return _tags(answer.get("model_version", {}))
    from flows.registry import Registry

    return Registry(settings.home / "artifacts").version_tags(model, version)


def read_run_tags(settings: Settings, run_id: str) -> dict[str, str]:
    """The tags of a run: git commit, data digest, gate verdict …; empty for an unknown one."""
    uri = os.environ["MLFLOW_TRACKING_URI"]
    if uri.startswith(_SQLITE):
        return dict(_rows(Path(uri.removeprefix(_SQLITE)), "SELECT key, value FROM tags WHERE run_uuid = ?", run_id))
    if uri.startswith("http"):
        answer = _get(uri.rstrip("/"), "runs/get", run_id=run_id)
        return _tags(answer.get("run", {}).get("data", {}))
    from flows.registry import Registry

    return Registry(settings.home / "artifacts").run_tags(run_id)


def _from_sqlite(path: Path, model: str) -> RegistryView:
    aliases = _rows(path, "SELECT alias, version FROM registered_model_aliases WHERE name = ?", model)
    versions = _rows(
        path,
        "SELECT version, COALESCE(run_id, '') FROM model_versions WHERE name = ? AND current_stage != ?",
        model,
        _DELETED,
    )
    return RegistryView(dict(aliases), dict(versions))


def _rows(path: Path, query: str, *parameters: Any) -> list[Any]:
    if not path.exists() or not path.stat().st_size:
        return []
    try:
        with closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_TIMEOUT_SECONDS)
        ) as file:
            return file.execute(query, parameters).fetchall()
    except sqlite3.Error as exc:
        raise RegistryUnread(f"MLflow's database {path} cannot be read ({exc}): `hotswap train` would mend it") from exc


def _from_server(uri: str, model: str) -> RegistryView:
    found = _get(uri, "registered-models/get", name=model).get("registered_model", {})
    aliases = {each["alias"]: int(each["version"]) for each in found.get("aliases", [])}
    return RegistryView(aliases, dict(_versions(uri, model)) if found else {})


def _versions(uri: str, model: str) -> Iterator[tuple[int, str]]:
    page = ""
    while True:
        asked = {"filter": f"name = '{model}'", "max_results": _PAGE, **({"page_token": page} if page else {})}
        answer = _get(uri, "model-versions/search", **asked)
        for each in answer.get("model_versions", []):
            yield int(each["version"]), each.get("run_id", "")
        page = answer.get("next_page_token", "")
        if not page:
            return


def _get(uri: str, path: str, **asked: Any) -> dict[str, Any]:
    try:
        answer = requests.get(f"{uri}/api/2.0/mlflow/{path}", params=asked, timeout=_TIMEOUT_SECONDS)
        if answer.status_code == 404:
            return {}
        answer.raise_for_status()
        found = answer.json()
    except (requests.RequestException, ValueError) as exc:
        raise RegistryUnread(f"MLflow at {uri} cannot be read ({exc}): check that it runs") from exc
    return found if isinstance(found, dict) else {}


def _tags(holder: Mapping[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in holder.get("tags", [])}
