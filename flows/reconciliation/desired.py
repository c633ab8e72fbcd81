"""
Decides where the labels and aliases of a model should point.

The registry decides where a label points, the directory decides what is served. So an alias that was moved on MLflow's
page takes its label with it once that version is available and answers, and a version that was removed by hand loses
its label, which falls back to the newest earlier version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flows.promotion.history import stable_once
from flows.promotion.labels import STABLE, alias_of, label_of
from flows.reconciliation.state import Snapshot


def desired_labels(snapshot: Snapshot) -> dict[str, int]:
    """Where each label should point."""
    if snapshot.registry is None:
        aliases: Mapping[str, int] = {alias_of(label): version for label, version in snapshot.labels.items()}
    else:
        aliases = snapshot.registry.aliases
    labels = sorted({*snapshot.labels, *map(label_of, aliases)})
    desired = {
        label: _desired(snapshot, label, snapshot.labels.get(label), aliases.get(alias_of(label))) for label in labels
    }
    return {label: version for label, version in desired.items() if version is not None}


def desired_aliases(snapshot: Snapshot, labels: Mapping[str, int]) -> dict[str, int | None]:
    """Every alias that has to move so that it follows `labels`, and where to; None: it is taken away."""
    if snapshot.registry is None:
        return {}
    aliases = snapshot.registry.aliases
    moves: dict[str, int | None] = {}
    for label in sorted({*labels, *map(label_of, aliases)}):
        alias, version = alias_of(label), labels.get(label)
        if version in snapshot.registry.runs:
            moves[alias] = version
        elif aliases.get(alias) is not None:
            moves[alias] = None
    pending = {alias for alias, version in aliases.items() if snapshot.is_loading(version)}
    return {alias: to for alias, to in moves.items() if alias not in pending and aliases.get(alias) != to}


def _desired(snapshot: Snapshot, label: str, labelled: int | None, aliased: int | None) -> int | None:
    """Where `label` should point, given where label and alias point now; None: nowhere."""
    if snapshot.is_usable(aliased) or (aliased == labelled and aliased in snapshot.published):
        return aliased
    if snapshot.is_loading(aliased):
        return labelled
    if labelled in snapshot.published:
        return _without_alias(snapshot, label, labelled) if aliased is None else labelled
    if label != STABLE:
        return None
    return _replacement(snapshot, labelled or aliased or 0, _usable(snapshot))


def _without_alias(snapshot: Snapshot, label: str, labelled: int | None) -> int | None:
    """Where a label should point that has no alias."""
    if not snapshot.is_unregistered(labelled):
        # Its alias was taken away in the registry; `stable` must stay, as clients depend on it.
        return labelled if label == STABLE else None
    if label == STABLE and labelled in snapshot.once_registered:
        registered = [version for version in _usable(snapshot) if not snapshot.is_unregistered(version)]
        return _replacement(snapshot, labelled, registered) or labelled
    return labelled


def _usable(snapshot: Snapshot) -> list[int]:
    return [version for version in snapshot.published if snapshot.is_usable(version)]


def _replacement(snapshot: Snapshot, gone: int | None, candidates: Sequence[int]) -> int | None:
    """The candidate that becomes stable: an earlier one first, then one that was stable before, then no canary."""
    canaries = {version for label, version in snapshot.labels.items() if label != STABLE}
    was_stable = stable_once(snapshot.entries)

    def rank(version: int) -> tuple[bool, bool, bool, int]:
        return version < (gone or 0), version in was_stable, version not in canaries, version

    return max(candidates, key=rank, default=None)
