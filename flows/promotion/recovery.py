"""
Recovery: what a killed promotion, rollback or removal left behind is finished or undone.

A version that carries a label was verified, so its promotion is finished; one without is taken out again. A rollback
or a removal is finished.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flows.journal import Entry
from flows.promotion import promotion, removal, rollback
from flows.promotion.deployment import Deployment
from flows.promotion.undo import undo


def unfinished(entries: Sequence[Entry], labels: Mapping[str, int]) -> Entry | None:
    """The entry that began a promotion or a rollback which was interrupted, if it is the last one."""
    return promotion.unfinished(entries, labels) or rollback.unfinished(entries, labels)


def recover(deployment: Deployment) -> None:
    """Finish or undo what was interrupted; the model's lock is held."""
    if removal.finish(deployment, deployment.registry) or rollback.finish(deployment) is not None:
        return
    labels = deployment.labels.read()
    begun = promotion.unfinished(deployment.journal.read(), labels)
    if begun is None or begun.version is None:
        return
    if not promotion.finish(deployment, begun, "an interrupted promotion was finished"):
        labels = {label: at for label, at in labels.items() if at != begun.version}
        aliases = deployment.registry.aliases(deployment.model)
        undo(deployment, begun.version, labels, aliases, "its promotion was interrupted")
