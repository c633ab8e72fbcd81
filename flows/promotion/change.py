"""What one command changes, and how the journal records it."""

from __future__ import annotations

from dataclasses import dataclass

from flows.events import Event, Kind, tell
from flows.promotion.deployment import Deployment

_KINDS = {"label": Kind.PROMOTED, "rollback": Kind.ROLLED_BACK}
"""the actions that change who gets which version, as events"""


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

    def record(self, deployment: Deployment, why: str | None = None) -> None:
        """Append it to the journal, with the run and the digest of its version."""
        stamp = deployment.stamp(self.version)
        deployment.journal.append(
            self.action,
            version=self.version,
            label=self.label,
            previous=self.previous,
            retired=list(self.retired) or None,
            run_id=stamp.run_id,
            digest=stamp.digest,
            why=why,
        )
        if (kind := _KINDS.get(self.action)) is not None:
            facts = {"label": self.label, "previous": self.previous, "retired": list(self.retired), "by": "hand"}
            tell(deployment.settings, Event(kind, self.model, self.version, why, facts))
