"""Makes registry, directory, ``models.config``, journal and servers agree."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace

from flows.endpoints.servers import Endpoints
from flows.events import Event, Kind, tell
from flows.machine.workspaces import workspace
from flows.orchestration import open_runs
from flows.promotion import approval, labelling, recovery
from flows.promotion.deployment import Deployment
from flows.promotion.history import replay
from flows.promotion.labels import STABLE
from flows.reconciliation.desired import desired_aliases, desired_labels
from flows.reconciliation.findings import Finding, compare, find
from flows.reconciliation.state import Snapshot, take_snapshot
from flows.registry.tags import LOST_RUN
from flows.tallies import RECONCILES, Tally
from serving.protocol.errors import DeadlineExceeded, HotswapError, ServerUnavailable
from serving.repository.saved_model_files import digest
from serving.repository.stamp import STAMP_FILE, Stamp

log = logging.getLogger(__name__)

_MAX_PASSES = 3
"""what one repair uncovers is repaired in the next pass"""


@dataclass(frozen=True, slots=True)
class Repair:
    """What `repair` did for one model, or would do."""

    model: str
    repaired: tuple[Finding, ...]
    remaining: tuple[Finding, ...]
    dry_run: bool = False


def repair(deployment: Deployment, dry_run: bool = False) -> Repair:
    """
    Make all sides agree; with `dry_run` only say what would be done.

    Raises:
        RepositoryError: Another process is changing the model, or the repository cannot be written.
    """
    model = deployment.model
    if dry_run:
        findings = find(deployment)
        repairable = tuple(finding for finding in findings if finding.repairable)
        return Repair(model, repairable, tuple(each for each in findings if not each.repairable), dry_run=True)
    tally = Tally(deployment.settings.home)
    try:
        with deployment.lock(), deployment.servers.running() as servers:
            before, after = _repair_in_passes(deployment, servers)
    except Exception:
        tally.count(RECONCILES, model, "failed")
        raise
    if before:
        tally.count(RECONCILES, model, "remaining" if after else "repaired")
    remaining = {(finding.model, finding.subject) for finding in after}
    repaired = tuple(finding for finding in before if (finding.model, finding.subject) not in remaining)
    for finding in repaired:
        log.info("repaired model=%s what=%s", model, finding.what)
    if repaired:
        facts = {"repaired": [each.what for each in repaired], "remaining": [each.what for each in after]}
        why = "; ".join(facts["repaired"])
        tell(deployment.settings, Event(Kind.RECONCILED, model, deployment.champion, why, facts))
    return Repair(model, repaired, tuple(after))


def _repair_in_passes(deployment: Deployment, servers: Endpoints | None) -> tuple[list[Finding], list[Finding]]:
    """Repair until a pass changes nothing; the findings before and after."""
    snapshot = take_snapshot(deployment, servers)
    first = findings = list(compare(snapshot))
    for _ in range(_MAX_PASSES):
        if not any(finding.repairable for finding in findings):
            break
        before = findings
        _Pass(deployment, snapshot, servers).run()
        snapshot = take_snapshot(deployment, servers)
        findings = list(compare(snapshot))
        if findings == before:
            break
    return first, findings


class _Pass:
    """One pass over everything that can be repaired; the model's lock is held."""

    def __init__(self, deployment: Deployment, snapshot: Snapshot, servers: Endpoints | None) -> None:
        self._deployment = deployment
        self._model = deployment.model
        self._servers = servers
        self._snapshot = snapshot

    def run(self) -> None:
        self._close_open_runs()
        if self._snapshot.journal_error:
            return
        self._finish_interrupted()
        if not self._snapshot.is_announced:
            self._deployment.announce()
        self._withdraw_abandoned()
        self._reload_servers()
        lost = self._register_lost()
        labels = self._move_labels()
        self._move_aliases(labels)
        self._record(labels, lost)
        self._wait_until_removed()

    def _look_again(self) -> None:
        self._snapshot = take_snapshot(self._deployment, self._servers)

    def _close_open_runs(self) -> None:
        if self._snapshot.open_runs and self._snapshot.registry is not None:
            open_runs.close(self._deployment.settings, self._deployment.registry, self._model)

    def _finish_interrupted(self) -> None:
        if self._snapshot.removal is not None or self._snapshot.unfinished is not None:
            recovery.recover(self._deployment)
            self._look_again()

    def _withdraw_abandoned(self) -> None:
        """Take out again what waited for an approval when its process was killed."""
        if self._snapshot.abandoned and self._snapshot.registry is not None:
            for wait in self._snapshot.abandoned:
                approval.withdraw(self._deployment, wait, "the process that waited for its approval has gone")
            self._look_again()

    def _reload_servers(self) -> None:
        snapshot = self._snapshot
        is_behind = any(snapshot.is_behind(server) for server in snapshot.servers or ())
        if not is_behind and (snapshot.is_configured or not snapshot.published):
            return
        if snapshot.published:
            labelling.apply(self._deployment, snapshot.labels)
        else:  # what is served is of another repository
            self._deployment.servers.each_running(lambda server: server.reload(self._deployment.repository))
        if self._servers is not None:
            self._servers.each_reachable(lambda server: server.wait_settled(self._model, snapshot.published))
            self._look_again()

    def _register_lost(self) -> list[int]:
        """Register lost versions again; those that the registry could not take back."""
        lost = [version for version in self._snapshot.lost if self._snapshot.can_be_registered_again(version)]
        if not lost:
            return []
        failed = [version for version in lost if not self._register_again(version)]
        self._look_again()
        return failed

    def _register_again(self, version: int) -> bool:
        """Give the served files of a version to the registry, under its number; False where that cannot be."""
        path, stamp = self._deployment.repository.path(self._model, version), self._deployment.stamp(version)
        if stamp.golden is None or stamp.run_id is None or stamp.digest is None or digest(path) != stamp.digest:
            return False
        registry = self._deployment.registry
        run = registry.run_or_another(stamp.run_id, self._model)
        with workspace() as directory:
            saved_model = directory / "saved_model"
            shutil.copytree(path, saved_model, ignore=shutil.ignore_patterns(STAMP_FILE.name))
            model_uri = run.log_model(saved_model, stamp.golden)
        if not registry.register_again(run.id, self._model, version, model_uri, stamp.digest):
            return False
        kept = {"signature": stamp.signature or "", LOST_RUN: stamp.run_id if run.id != stamp.run_id else ""}
        registry.tag_version(self._model, version, {key: value for key, value in kept.items() if value})
        return True

    def _move_labels(self) -> dict[str, int]:
        """Move the labels that can be moved; where all of them should be."""
        snapshot, desired = self._snapshot, desired_labels(self._snapshot)
        reached = {label: version for label, version in snapshot.labels.items() if label in desired}
        for label, version in desired.items():
            if snapshot.labels.get(label) != version and self._move_label(label, version):
                reached[label] = version
        snapshot = replace(snapshot, labels=reached)
        at_servers = any(snapshot.has_other_labels(server) for server in snapshot.servers or ())
        if at_servers or reached != self._deployment.labels.read():
            labelling.apply(self._deployment, reached)
        return reached

    def _move_label(self, label: str, version: int) -> bool:
        try:
            labelling.move(self._deployment, label, version)
        except (ServerUnavailable, DeadlineExceeded):
            raise
        except HotswapError as exc:
            # The alias goes back to where the label stays.
            log.warning("label not moved model=%s label=%s version=%d error=%s", self._model, label, version, exc)
            return False
        return True

    def _move_aliases(self, labels: Mapping[str, int]) -> None:
        if moves := desired_aliases(self._snapshot, labels):
            registry = self._deployment.registry
            for alias, version in moves.items():
                registry.set_alias(self._model, alias, version)

    def _record(self, labels: Mapping[str, int], lost: list[int]) -> None:
        """Write into the journal what it does not have yet."""
        repository, published = self._deployment.repository, set(self._snapshot.published)
        journal = self._deployment.journal
        known = replay(journal.read())
        added, removed = sorted(published - known.published), sorted(known.published - published)
        if not added and not removed and not lost and known.labels == labels:
            return
        live = labels.get(STABLE)
        stamp = Stamp() if live is None else self._deployment.stamp(live)
        journal.append(
            "reconcile",
            version=live,
            previous=known.labels.get(STABLE),
            labels=dict(labels),
            added=added or None,
            removed=removed or None,
            lost=lost or None,
            digests={str(version): digest(repository.path(self._model, version)) for version in added} or None,
            run_id=stamp.run_id,
            digest=stamp.digest,
            why="directory or registry were changed by hand",
        )

    def _wait_until_removed(self) -> None:
        if self._servers is not None and self._snapshot.published:
            removed = sorted(set(self._snapshot.states or ()) - set(self._snapshot.published))
            self._servers.each(lambda server: server.wait_gone(self._model, removed))
