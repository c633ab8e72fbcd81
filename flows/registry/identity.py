"""
Checks that MLflow is the one that the versions published here were registered in.

An address that was forgotten or mistyped leads to another MLflow, often a new and empty one. What is registered or
labelled there would be missing in the right one, so everything that changes a registry checks this first. A registered
model that was created again counts as the same, because its versions can be registered again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flows.journal import Entry
from flows.registry import mlflow_access
from flows.registry.reader import RegistryUnread, RegistryView, read_registry
from serving.protocol.redaction import redacted
from serving.repository.store import Repository

_QUESTION = "is MLFLOW_TRACKING_URI the right one?"


def check_registry(repository: Repository, model: str, entries: Sequence[Entry], may_be_unknown: bool = False) -> None:
    """
    Ask MLflow, where versions of `model` that were registered are here; nothing is made there.

    Args:
        repository: Where they are.
        model: The model's name.
        entries: Its journal.
        may_be_unknown: Whether it is well when MLflow does not know the model.

    Raises:
        RegistryUnread: It is another one, or cannot be used; the message asks for the address.
    """
    published = registered_here(repository, model, entries)
    if not published:
        return
    view = read_registry(model, "used")
    if view.known or not may_be_unknown:
        check_same_registry(view, model, published)


def registered_here(repository: Repository, model: str, entries: Sequence[Entry]) -> dict[int, str | None]:
    """The run, as far as its stamp is there, of every version on disk that was registered when it was published."""
    on_disk = (*repository.versions(model), *repository.retired(model))
    once = journaled_publications(entries)
    return {version: repository.stamp(model, version).run_id for version in on_disk if version in once}


def journaled_publications(entries: Sequence[Entry]) -> set[int | None]:
    """The versions that were published by a promotion, so that they were registered."""
    return {entry.version for entry in entries if entry.action == "publish"}


def check_same_registry(view: RegistryView, model: str, published: Mapping[int, str | None]) -> None:
    """
    Check that `view` is of the registry that the versions `published` here were registered in.

    Raises:
        RegistryUnread: It is not; the message asks for the address.
    """
    address = redacted(mlflow_access.registry_address())
    if published and not view.known:
        raise RegistryUnread(
            f"MLflow at {address} does not know the model {model!r}, which was registered: {_QUESTION} "
            "If the model was deleted there, or is to begin anew, create it on MLflow's page, "
            "and `hotswap reconcile` registers its versions"
        )
    for version, run_id in sorted(published.items()):
        there = view.runs.get(version)
        if run_id and there and there != run_id:
            raise RegistryUnread(
                f"MLflow at {address} has another version {version} of {model!r}, made by run {there}, "
                f"not by {run_id}: {_QUESTION}"
            )
