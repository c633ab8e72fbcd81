"""
The aliases of a model in MLflow, which follow its labels.

``champion`` follows label ``stable``, ``challenger`` follows ``canary``, and any other alias the label of its name.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from flows.promotion.attempt import attempt
from flows.promotion.deployment import Deployment
from flows.promotion.labels import STABLE, alias_of

if TYPE_CHECKING:
    from flows.registry.mlflow_registry import Registry

log = logging.getLogger(__name__)


def point(deployment: Deployment, label: str, version: int) -> None:
    """Point the alias of `label` to a version; one that is not registered gets no alias, with a warning."""
    registry, model, alias = deployment.registry, deployment.model, alias_of(label)
    if version in registry.versions(model):
        registry.set_alias(model, alias, version)
    else:
        log.warning("alias not set: version is not registered model=%s version=%d alias=%s", model, version, alias)


def follow(deployment: Deployment, version: int, labels: Iterable[str]) -> None:
    """Point the alias of each label to a version that was just promoted, and tag the version with it."""
    registry, model = deployment.registry, deployment.model
    for label in labels:
        registry.set_alias(model, alias_of(label), version)
        registry.tag_version(model, version, {"promotion": _tag(label)})


def follow_made(deployment: Deployment, version: int, label: str, given_up: Iterable[str]) -> None:
    """Record that a published version has got its label, and has given up others."""
    registry, model = deployment.registry, deployment.model
    point(deployment, label, version)
    for alias in map(alias_of, given_up):
        if registry.aliases(model).get(alias) == version:
            registry.set_alias(model, alias, None)
    if version in registry.versions(model):
        registry.tag_version(model, version, {"promotion": _tag(label)})


def take_away(registry: Registry, model: str, labels: Iterable[str]) -> None:
    """Delete the aliases of `labels`, as far as there are any."""
    for alias in registry.aliases(model).keys() & {alias_of(label) for label in labels}:
        registry.set_alias(model, alias, None)


@contextmanager
def reverted_on_failure(deployment: Deployment, labels: Iterable[str]) -> Iterator[None]:
    """Put the aliases of `labels` back if the block fails."""
    before = deployment.registry.aliases(deployment.model)
    try:
        yield
    except BaseException:
        for alias in map(alias_of, labels):
            attempt("restore alias", partial(_put_back, deployment, alias, before.get(alias)))
        raise


def _put_back(deployment: Deployment, alias: str, version: int | None) -> None:
    registry, model = deployment.registry, deployment.model
    if registry.aliases(model).get(alias) != version:
        registry.set_alias(model, alias, version)


def _tag(label: str) -> str:
    return "promoted" if label == STABLE else f"labelled {label}"
