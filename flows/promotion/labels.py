"""
The labels of a model: the names they may have, and the versions they point to in ``models.config``.

TensorFlow Serving reads all labels from this one file, which all models share, so it has a lock of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from serving.protocol.errors import FailedPrecondition, InvalidRequest
from serving.repository.model_config import ModelEntry, parse, render
from serving.repository.store import Repository
from serving.repository.version_policy import All

STABLE = "stable"
CANARY = "canary"
PENDING = "pending"
"""of a version that waits for an approval"""
_ALIASES = {STABLE: "champion", CANARY: "challenger"}
_LABELS = {alias: label for label, alias in _ALIASES.items()}
_LABEL = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


class Protected(FailedPrecondition):
    """This version is in use: it is retired only with a reason."""


def alias_of(label: str) -> str:
    """The registry's name for a label."""
    return _ALIASES.get(label, label)


def label_of(alias: str) -> str:
    """The server's name for an alias."""
    return _LABELS.get(alias, alias)


def validate_label(label: str) -> str:
    """
    Return `label` if both the server and the registry can carry it.

    Raises:
        InvalidRequest: One of them cannot.
    """
    if not _LABEL.fullmatch(label) or label == "latest" or re.fullmatch(r"[vV]\d+", label):
        raise InvalidRequest(
            f"{label!r} cannot be a label: use letters, digits and '_', first a letter, and neither 'latest' nor 'v<N>'"
        )
    if label == PENDING:
        raise InvalidRequest(f"Label {label!r} is that of a version that waits for `hotswap approve`: choose another")
    return label


class Labels:
    """The labels of one model, as ``models.config`` has them."""

    def __init__(self, repository: Repository, model: str) -> None:
        self._repository = repository
        self._model = model

    @property
    def is_configured(self) -> bool:
        """Whether ``models.config`` lists the model."""
        return self._model in self._entries()

    def read(self) -> dict[str, int]:
        """The version that each label points to."""
        entry = self._entries().get(self._model)
        return dict(entry.labels) if entry else {}

    def carried_by(self, version: int) -> tuple[str, ...]:
        """The labels that point to `version`."""
        return tuple(sorted(label for label, at in self.read().items() if at == version))

    def write(self, labels: Mapping[str, int]) -> None:
        """Make these all the labels of the model, which ``models.config`` lists from now on."""
        with self._repository.lock_config():
            entries = self._entries()
            base_path = str(self._repository.base_path(self._model))
            known = entries.get(self._model) or ModelEntry(self._model, base_path, All())
            entries[self._model] = replace(known, base_path=base_path, labels=dict(labels))
            self._repository.write_config(render(list(entries.values())))

    def forget(self) -> None:
        """Take the model out of ``models.config``."""
        with self._repository.lock_config():
            entries = self._entries()
            entries.pop(self._model, None)
            self._repository.write_config(render(list(entries.values())))

    def _entries(self) -> dict[str, ModelEntry]:
        return {entry.name: entry for entry in parse(self._repository.read_config())}
