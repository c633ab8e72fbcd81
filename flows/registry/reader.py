"""
Reads what MLflow has about a model.

Reading changes nothing: no table is made or migrated, and what cannot be read is never taken for gone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from flows.registry import mlflow_access
from flows.registry.mlflow_errors import RegistryError
from flows.registry.statement import STATEMENT
from flows.registry.tags import LOST_RUN, NAMESPACE

if TYPE_CHECKING:
    from mlflow import MlflowClient

T = TypeVar("T")

_PAGE = 1000
_UNKNOWN = "RESOURCE_DOES_NOT_EXIST"
_FAILURE_SECONDS = 1.0
"""how long a failure answers for the next question too: a look at many models does not wait for each of them"""


class RegistryUnread(RegistryError):
    """MLflow cannot be read."""


@dataclass(frozen=True, slots=True)
class RegistryView:
    """One registered model."""

    aliases: Mapping[str, int] = field(default_factory=dict)
    runs: Mapping[int, str] = field(default_factory=dict)
    """the run of each registered version"""
    known: bool = False
    """whether there is a registered model of this name"""
    statement: str | None = None
    """what the hosts of a fleet were told to have, as `Statement` encodes it"""


def read_registry(model: str, what: str = "read") -> RegistryView:
    """
    Aliases and versions of `model`; empty where MLflow does not know it.

    Args:
        model: The model's name.
        what: What MLflow cannot be, in the words of an error: used or read.

    Raises:
        RegistryUnread: MLflow cannot be read.
    """
    return _READER.ask(mlflow_access.registry_address(), lambda client: _view(client, model), RegistryView(), what)


def check_readable() -> None:
    """
    Raises:
        RegistryUnread: MLflow cannot be read.
    """
    _READER.ask(mlflow_access.registry_address(), lambda client: client.search_registered_models(max_results=1), None)


def read_version_tags(model: str, version: int) -> dict[str, str]:
    """What the registry keeps with one version, such as ``hotswap.digest``; empty for an unknown one."""

    def tags(client: MlflowClient) -> dict[str, str]:
        return dict(client.get_model_version(model, str(version)).tags)

    return _READER.ask(mlflow_access.registry_address(), tags, {})


def read_run_tags(run_id: str) -> dict[str, str]:
    """The tags of a run: git commit, data digest, gate verdict …; empty for an unknown one."""
    return _READER.ask(mlflow_access.tracking_address(), lambda client: dict(client.get_run(run_id).data.tags), {})


class _Reader:
    """Asks MLflow, and remembers for a moment that it failed, unless it answers meanwhile."""

    def __init__(self) -> None:
        self._failed_at = float("-inf")
        self._failed = ("", "", "")

    def ask(self, address: str, question: Callable[[MlflowClient], T], unknown: T, what: str = "read") -> T:
        """The answer of MLflow at `address`; `unknown` where it has nothing of that name."""
        if self._failed[:2] == (address, what) and time.monotonic() - self._failed_at < _FAILURE_SECONDS:
            raise RegistryUnread(self._failed[2])
        try:
            with mlflow_access.translated(address, what):
                answer = _answer(address, question, unknown, what)
        except RegistryError as exc:
            self._failed, self._failed_at = (address, what, str(exc)), time.monotonic()
            raise RegistryUnread(str(exc)) from exc
        self._failed_at = float("-inf")
        return answer


def _answer(address: str, question: Callable[[MlflowClient], T], unknown: T, what: str) -> T:
    if mlflow_access.is_new(address):
        return unknown
    tracking = mlflow_access.tracking_address()
    is_unused = tracking != address and mlflow_access.is_new(tracking)
    client = mlflow_access.connect(what, address if is_unused else tracking)
    try:
        return question(client)
    except mlflow_access.import_mlflow().MlflowException as exc:
        if exc.error_code != _UNKNOWN:
            raise
        return unknown


_READER = _Reader()


def _view(client: MlflowClient, model: str) -> RegistryView:
    # First what only MLflow answers: any web server can say that there is no such model.
    runs = dict(_runs(client, model))
    found = client.get_registered_model(model)
    aliases = {alias: int(version) for alias, version in found.aliases.items()}
    return RegistryView(aliases, runs, known=True, statement=found.tags.get(STATEMENT))


def _runs(client: MlflowClient, model: str) -> Iterator[tuple[int, str]]:
    page: Any = None
    while True:
        found = client.search_model_versions(f"name = '{model}'", max_results=_PAGE, page_token=page)
        for entry in found:
            yield int(entry.version), entry.tags.get(f"{NAMESPACE}.{LOST_RUN}") or entry.run_id or ""
        if not (page := found.token):
            return
