"""Compares what every side has of a model, and names each disagreement with its next step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from flows.endpoints.views import ModelAtServer
from flows.promotion.deployment import Deployment
from flows.promotion.history import replay
from flows.promotion.labels import label_of
from flows.reconciliation.desired import desired_aliases, desired_labels
from flows.reconciliation.state import LOADING, Snapshot, take_snapshot

_REPAIRED = "`hotswap reconcile` repairs it"
_WAIT = "wait until it is loaded"


@dataclass(frozen=True, slots=True)
class Finding:
    """One disagreement."""

    model: str
    version: int | None
    what: str
    next_step: str
    repairable: bool = True
    """whether `repair` puts it right"""
    subject: str = ""
    """what it is about, whatever is wrong with that; the same before and after a repair that did not help"""


def find(deployment: Deployment) -> list[Finding]:
    """Every disagreement about one model."""
    with deployment.servers.running() as servers:
        return list(compare(take_snapshot(deployment, servers)))


def compare(snapshot: Snapshot) -> Iterator[Finding]:
    """Every disagreement, in the order in which `repair` works."""
    model = snapshot.model
    for flow_run in snapshot.open_runs:
        what = f"the training of flow run {flow_run} has ended, but its run in MLflow is still open"
        repairable = snapshot.registry is not None
        yield Finding(model, None, what, _REPAIRED, repairable, subject=f"run {flow_run}")
    if (blocking := _blocking(snapshot)) is not None:
        yield blocking
        return
    if snapshot.published and not snapshot.is_configured:
        what = "models.config does not have this model with the base path of this repository"
        yield Finding(model, None, what, _REPAIRED, subject="config")
    if not snapshot.is_announced:
        what = "the hosts were told other versions or labels than are published"
        yield Finding(model, None, what, _REPAIRED, subject="statement")
    journaled = replay(snapshot.entries)
    yield from _directory_findings(snapshot, journaled.published)
    yield from _label_findings(snapshot, journaled.labels)
    yield from _server_findings(snapshot)
    yield from _registry_findings(snapshot, journaled.published)
    for wait in snapshot.abandoned:
        what = f"nobody waits any more for the approval of version {wait.version}"
        yield Finding(model, wait.version, what, _REPAIRED, subject=f"approval {wait.version}")


def _blocking(snapshot: Snapshot) -> Finding | None:
    """What has to be put right before anything else can be judged."""
    model = snapshot.model
    if snapshot.journal_error:
        step = "put a copy of the file back, or move it away"
        return Finding(model, None, snapshot.journal_error, step, repairable=False)
    if snapshot.removal is not None:
        return Finding(model, None, "the removal of the model was interrupted", _REPAIRED, subject="begun")
    if (begun := snapshot.unfinished) is not None:
        action = "promotion of" if begun.action == "publish" else "rollback to"
        what = f"the {action} version {begun.version} was interrupted"
        return Finding(model, begun.version, what, _REPAIRED, subject="begun")
    return None


def _directory_findings(snapshot: Snapshot, journaled: set[int]) -> Iterator[Finding]:
    for version in sorted(set(snapshot.published) ^ journaled):
        if version in journaled:
            what = f"version {version} was published, but is gone from the directory"
        else:
            what = f"version {version} is in the directory, but was never published"
        yield Finding(snapshot.model, version, what, _REPAIRED, subject=f"directory {version}")


def _label_findings(snapshot: Snapshot, journaled: Mapping[str, int]) -> Iterator[Finding]:
    model, desired = snapshot.model, desired_labels(snapshot)
    aliases = {} if snapshot.registry is None else snapshot.registry.aliases
    for label in sorted({*snapshot.labels, *desired}):
        at, to = snapshot.labels.get(label), desired.get(label)
        if at != to:
            yield _moved(model, f"label {label}", at, to)
    for alias, to in desired_aliases(snapshot, desired).items():
        yield _moved(model, f"alias {alias}", aliases.get(alias), to)
    if journaled != desired:
        labels = ", ".join(f"{label}={version}" for label, version in sorted(desired.items())) or "no label"
        yield Finding(model, None, f"the journal does not have {labels}", _REPAIRED, subject="journal")
    for alias, version in sorted(aliases.items()):
        if snapshot.is_loading(version) and snapshot.labels.get(label_of(alias)) != version:
            what = f"alias {alias} is at version {version}, which the server has not loaded yet"
            yield Finding(model, version, what, _WAIT, repairable=False, subject=f"alias {alias}")


def _moved(model: str, name: str, at: int | None, to: int | None) -> Finding:
    what = f"{name} is at {_named(at)}, and should be at {_named(to)}"
    return Finding(model, to or at, what, _REPAIRED, subject=name)


def _named(version: int | None) -> str:
    return "no version" if version is None else f"version {version}"


def _server_findings(snapshot: Snapshot) -> Iterator[Finding]:
    model, servers = snapshot.model, snapshot.servers or ()
    for server in servers:
        if server.problem:
            what = f"the server at {server.server} does not answer: {server.problem}"
            step = f"start it, or take it out of HOTSWAP_SERVING_ENDPOINTS: {server.server}"
            yield Finding(model, None, what, step, repairable=False, subject=f"server {server.server}")
    for version in snapshot.published:
        missing = [each for each in servers if each.states.get(version) != "AVAILABLE"]
        if missing:
            yield _not_served(snapshot, version, missing)
    for server in servers:
        if server.elsewhere or server.base_path:
            places = ", ".join(server.elsewhere.values()) or server.base_path
            what = f"the server at {server.server} serves {places}, which is not of this repository"
            yield Finding(model, None, what, _REPAIRED, subject=f"place at {server.server}")
        if snapshot.published and snapshot.has_other_labels(server):
            what = f"the server at {server.server} has other labels than models.config"
            yield Finding(model, None, what, _REPAIRED, subject=f"labels at {server.server}")


def _not_served(snapshot: Snapshot, version: int, missing: list[ModelAtServer]) -> Finding:
    servers = snapshot.servers or ()
    why = next((f": {each.errors[version]}" for each in missing if version in each.errors), "")
    if len(servers) == 1 and not servers[0].problem:
        what = f"version {version} is published, and the server {missing[0].report(version)}{why}"
    else:
        states = ", ".join(f"{each.server} {each.report(version)}" for each in missing)
        what = f"version {version} is served by {len(servers) - len(missing)} of {len(servers)}: {states}{why}"
    repairable = any(each.needs_reload(version) for each in missing)
    step = _REPAIRED if repairable else _step_where_not_served(snapshot, version, missing)
    return Finding(snapshot.model, version, what, step, repairable, subject=f"served {version}")


def _step_where_not_served(snapshot: Snapshot, version: int, missing: list[ModelAtServer]) -> str:
    """The next step for a version that a reload does not bring; what is live is never taken out."""
    answering = [each for each in missing if not each.problem]
    if any(each.states.get(version) in LOADING for each in answering):
        return _WAIT
    if not answering:
        return f"start the server at {', '.join(each.server for each in missing)}"
    if snapshot.is_live(version) or len(missing) < len(snapshot.servers or ()):
        return f"see the log of the server at {', '.join(each.server for each in answering)}, and restart it"
    return f"see the server's log, or take it out with `hotswap retire {snapshot.model} {version}`"


def _registry_findings(snapshot: Snapshot, journaled: set[int]) -> Iterator[Finding]:
    model = snapshot.model
    if snapshot.registry is None:
        step = "put that right, then `hotswap doctor` again"
        yield Finding(model, None, snapshot.registry_error, step, repairable=False, subject="registry")
        return
    for version in snapshot.lost:
        if version in journaled:
            what = f"version {version} is served, but the registry has lost it"
            again = snapshot.can_be_registered_again(version)
            step = "`hotswap reconcile` registers it again" if again else _step_where_lost(snapshot, version)
            yield Finding(model, version, what, step, repairable=again, subject=f"registry {version}")


def _step_where_lost(snapshot: Snapshot, version: int) -> str:
    """The next step for a version that the registry cannot take back; what is live is never taken out."""
    if snapshot.is_live(version) or version == max(snapshot.published):
        return "it stays in service until the next training that passes takes its place"
    return f"`hotswap retire {snapshot.model} {version}`"
