"""Tells the hosts of a fleet what they must have of a model, by a statement in the registry."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

from flows.registry.mlflow_errors import RegistryError
from flows.registry.reader import read_registry
from flows.registry.statement import Statement
from serving.repository.stamp import Stamp

if TYPE_CHECKING:
    from flows.promotion.deployment import Deployment

log = logging.getLogger(__name__)

_LOCAL_TO_PUBLISH = ("golden", "features", "metrics")
"""what of a stamp no host needs, and what may be long"""


def statement_of(deployment: Deployment) -> Statement:
    """What the hosts must have: every published version that was registered, and the labels at those."""
    repository = deployment.repository
    published = deployment.versions if deployment.labels.is_configured else []
    digests = {version: deployment.stamp(version).digest for version in published}
    versions = {version: digest for version, digest in digests.items() if digest is not None}
    labels = {label: version for label, version in deployment.labels.read().items() if version in versions}
    return Statement(repository.identity() or "", versions, labels)


def announce(deployment: Deployment) -> None:
    """
    Write the statement, if it has changed.

    Raises:
        RegistryError: MLflow does not take it; the hosts stay as they are.
    """
    statement, view = statement_of(deployment), read_registry(deployment.model, "used")
    if not view.known or view.statement == statement.encode():
        return
    before = _versions(view.statement, deployment.model)
    registry = deployment.open_registry(may_be_unknown=True)
    for version in statement.versions.keys() - before:
        registry.tag_version(deployment.model, version, {"stamp": _encoded(deployment.stamp(version))})
    registry.state(deployment.model, statement)
    if statement.versions and (others := sorted(set(deployment.versions) - statement.versions.keys())):
        log.warning("hosts do not get what was not registered model=%s versions=%s", deployment.model, others)
    log.info("hosts told model=%s versions=%s labels=%s", deployment.model, list(statement.versions), statement.labels)


def _versions(statement: str | None, model: str) -> set[int]:
    """The versions that the hosts were told of before."""
    try:
        return set(Statement.decode(statement, model).versions) if statement else set()
    except RegistryError:  # written by hand, and replaced now
        return set()


def _encoded(stamp: Stamp) -> str:
    record = {name: value for name, value in stamp.encode().items() if name not in _LOCAL_TO_PUBLISH}
    return json.dumps(record, separators=(",", ":"))
