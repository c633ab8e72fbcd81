"""
Versions that wait for somebody who approves them.

Such a version is published and verified, and carries the label ``pending``: clients can try it by that label, retention
keeps it, and it is neither what is live nor what would become live. The models repository has a file about the wait, so
that one that nobody waits for any more, as after a kill, is found and taken out again.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from flows.orchestration.open_runs import has_gone
from flows.promotion import aliases, labelling
from flows.promotion.attempt import attempt
from flows.promotion.change import Change
from flows.promotion.deployment import Deployment
from flows.promotion.labels import PENDING
from serving.protocol.errors import InvalidRequest
from serving.repository.files import write_atomically

_GRACE = timedelta(minutes=10)
"""after its end, before a wait of another machine counts as abandoned"""


@dataclass(frozen=True, slots=True)
class Wait:
    """A flow run that waits for an approval."""

    model: str
    version: int
    label: str
    """what the version gets when it is approved"""
    flow_run: str
    """in Prefect"""
    prefect: str
    """the address of its API"""
    expires: str
    """ISO 8601, UTC"""
    was_published: bool
    """whether the version was published before, so that it stays where it is not approved"""
    host: str
    home: str

    @property
    def is_abandoned(self) -> bool:
        """Whether its process has gone; of another machine's this is known some time after its end."""
        if self.host == socket.gethostname():
            return has_gone(Path(self.home), self.flow_run)
        return datetime.now(UTC) > datetime.fromisoformat(self.expires) + _GRACE


def begin(deployment: Deployment, wait: Wait) -> Change:
    """Label a verified version as pending, in the place of one that waits already; the model's lock is held."""
    write_atomically(_file(deployment, wait.version), json.dumps(asdict(wait)))
    change = labelling.move(deployment, PENDING, wait.version)
    aliases.point(deployment, PENDING, wait.version)
    change.record(deployment, f"waits until {wait.expires} for an approval of label {wait.label}")
    return change


def waits(deployment: Deployment) -> Iterator[Wait]:
    """Every wait of the model that has not been ended."""
    for path in sorted(_directory(deployment).glob("*.json")):
        with suppress(OSError, ValueError, TypeError):
            yield Wait(**json.loads(path.read_text("utf-8")))


def current(deployment: Deployment) -> Wait:
    """
    The wait for the version that is pending.

    Raises:
        InvalidRequest: There is none.
    """
    version = deployment.labels.read().get(PENDING)
    found = next((each for each in waits(deployment) if each.version == version and not each.is_abandoned), None)
    if found is None:
        raise InvalidRequest(f"No version of {deployment.model!r} waits for an approval: see `hotswap status`")
    return found


def withdraw(deployment: Deployment, wait: Wait, why: str) -> None:
    """
    Take a version out again that is not approved, or only its label where it was published before.

    Args:
        deployment: Its lock is held.
        wait: For the approval.
        why: What journal and registry keep as the reason.
    """
    model, version = deployment.model, wait.version
    forget(deployment, version, why)
    if not wait.was_published and version in deployment.versions and not deployment.labels.carried_by(version):
        deployment.repository.retire(model, version)
        attempt("wait", lambda: deployment.servers.each_running(lambda each: each.wait_gone(model, [version])))
        deployment.journal.append("retire", version=version, why=why)
    tags = {"promotion": "not approved", "promotion_reason": why[:500]}
    attempt("tag", partial(deployment.registry.tag_version, model, version, tags))


def forget(deployment: Deployment, version: int, why: str) -> None:
    """Let a version be pending no longer, whatever other labels it has; the model's lock is held."""
    labels = deployment.labels.read()
    if labels.get(PENDING) == version:
        labelling.apply(deployment, {label: at for label, at in labels.items() if label != PENDING})
        aliases.take_away(deployment.registry, deployment.model, (PENDING,))
        deployment.journal.append("unlabel", version=version, label=PENDING, why=why)
    _file(deployment, version).unlink(missing_ok=True)


def _file(deployment: Deployment, version: int) -> Path:
    return _directory(deployment) / f"{version}.json"


def _directory(deployment: Deployment) -> Path:
    return deployment.repository.root / ".approvals" / deployment.model
