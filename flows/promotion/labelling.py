"""
Where do the labels of a model point, and how does one move?

A label is written into ``models.config``, the running servers take it over, and it must be answered by the version it
points to; otherwise all labels go back to where they were. Whoever calls this holds the model's lock.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from flows.endpoints.servers import on_running_servers, running_server
from flows.settings import Settings
from serving.protocol.errors import HotswapError, InvalidRequest
from serving.repository.model_config import ModelEntry, parse, render
from serving.repository.store import Repository
from serving.repository.version_policy import All

log = logging.getLogger(__name__)

STABLE = "stable"
CANARY = "canary"
_ALIASES = {STABLE: "champion", CANARY: "challenger"}
_LABEL = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Change:
    """What one command changed."""

    action: str
    model: str
    version: int
    label: str | None = None
    previous: int | None = None
    """the version that `label` pointed to before"""
    retired: tuple[int, ...] = ()
    server: str | None = None
    """the server that has taken it over; None: it waits for the next start"""
    dry_run: bool = False
    """whether this is only what would change"""


def alias_of(label: str) -> str:
    """The registry's name for a label."""
    return _ALIASES.get(label, label)


def validate_label(label: str) -> str:
    """
    `label`, when both the server and the registry can carry it.

    Raises:
        InvalidRequest: One of them cannot.
    """
    if not _LABEL.fullmatch(label) or label == "latest" or re.fullmatch(r"[vV]\d+", label):
        raise InvalidRequest(
            f"{label!r} cannot be a label: use letters, digits and '_', first a letter, and neither 'latest' nor 'v<N>'"
        )
    return label


def read(repository: Repository, model: str) -> dict[str, int]:
    """Where each label of `model` points."""
    found = [entry for entry in parse(repository.read_config()) if entry.name == model]
    return dict(found[0].labels) if found else {}


def write(repository: Repository, model: str, labels: Mapping[str, int]) -> None:
    """Make these all the labels of `model`, which ``models.config`` knows from now on."""
    with repository.lock_config():
        entries = {entry.name: entry for entry in parse(repository.read_config())}
        base_path = str(repository.base_path(model))
        known = entries.get(model) or ModelEntry(model, base_path, All())
        entries[model] = replace(known, base_path=base_path, labels=dict(labels))
        repository.write_config(render(list(entries.values())))


def is_configured(repository: Repository, model: str) -> bool:
    """Does ``models.config`` know `model`?"""
    return any(entry.name == model for entry in parse(repository.read_config()))


def forget(repository: Repository, model: str) -> None:
    """Take `model` out of ``models.config``."""
    with repository.lock_config():
        entries = [entry for entry in parse(repository.read_config()) if entry.name != model]
        repository.write_config(render(entries))


def restore(settings: Settings, model: str, labels: Mapping[str, int]) -> None:
    """Make these all the labels of `model`, also at the running servers."""
    repository = Repository(settings.models_repo)
    write(repository, model, labels)
    on_running_servers(settings, lambda server: server.reload(repository))


def move(settings: Settings, model: str, label: str, version: int, without: str | None = None) -> Change:
    """
    Write the label, make a running server take it over, and see that the right version answers to it.

    Args:
        settings: Where the repository and the server are.
        model: The model's name.
        label: What moves.
        version: Where it moves to.
        without: A label that `version` loses in the same step.
    """
    repository = Repository(settings.models_repo)
    before = read(repository, model)
    stamp = repository.stamp(model, version)
    with running_server(settings) as servers:
        if servers is not None:
            servers.each(lambda server: server.check_available(model, label, version))
            servers.each(lambda server: server.check_answers(model, version, stamp))
        # A server has the files in memory, and would load what is there now at its next start.
        repository.check_files(model, version)
        try:
            kept = {name: at for name, at in before.items() if (name, at) != (without, version)}
            write(repository, model, {**kept, label: version})
            if servers is not None:
                servers.each(lambda server: server.reload(repository))
                servers.each(lambda server: server.check_label(model, label, version, stamp))
        except BaseException:
            attempt("restore labels", lambda: restore(settings, model, before))
            raise
    log.info("label moved model=%s label=%s version=%d previous=%s", model, label, version, before.get(label))
    return Change("label", model, version, label, before.get(label), server=servers.name if servers else None)


def attempt(step: str, action: Callable[[], Any]) -> Any:
    """What `action` returns; when it fails that is only told, and None is returned, so that the next step is tried."""
    try:
        return action()
    except HotswapError as exc:
        log.error("undo step failed step=%s error=%s", step, exc)
        return None
