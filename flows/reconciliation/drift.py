"""
Do registry, directory, ``models.config``, journal and server agree, and what makes them agree again?

The registry decides where a label points, the directory decides what is served. So an alias that was moved in the
MLflow page takes its label with it once that version is available and answers, and a version that was removed by hand
loses its label, which falls back to the newest earlier version.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from flows.endpoints.servers import Endpoints, running_server
from flows.endpoints.views import ModelAtServer
from flows.journal import BrokenJournal, Entry, Journal
from flows.machine.workspaces import workspace
from flows.orchestration import open_runs
from flows.promotion import labelling, promotion, removal
from flows.promotion.history import replay, stable_once
from flows.promotion.labelling import STABLE, alias_of
from flows.registry.identity import check_same_registry, journaled_publications, registered_here
from flows.registry.reader import RegistryView, read_registry
from flows.settings import Settings
from serving.protocol.errors import DeadlineExceeded, HotswapError, RepositoryError, ServerUnavailable, VersionNotFound
from serving.repository.model_config import parse
from serving.repository.store import STAMP, Repository, digest

log = logging.getLogger(__name__)

_COMING = ("START", "LOADING", None)
_MAX_PASSES = 3
"""what one repair uncovers is repaired in the next pass"""


@dataclass(frozen=True, slots=True)
class Finding:
    """One disagreement."""

    model: str
    version: int | None
    what: str
    next_step: str
    repairable: bool = True
    """whether `repair` mends it"""
    subject: str = ""
    """what it is about, whatever is wrong with that; the same before and after a repair that did not help"""


@dataclass(frozen=True, slots=True)
class Seen:
    """One model, as every side has it."""

    model: str
    published: tuple[int, ...]
    retired: tuple[int, ...]
    labels: Mapping[str, int]
    configured: bool
    """whether ``models.config`` knows it, at its place"""
    is_listed: bool
    """whether ``models.config`` knows it at all"""
    entries: tuple[Entry, ...]
    registry: RegistryView | None
    """None where MLflow cannot be read"""
    servers: tuple[ModelAtServer, ...] | None
    """what each has of it; None where none runs"""
    registry_error: str = ""
    """why MLflow cannot be read"""
    journal_error: str = ""
    """which line of the journal was changed"""
    open_runs: tuple[str, ...] = ()
    """the flow runs of the trainings that have ended without closing their runs in MLflow"""

    @property
    def states(self) -> Mapping[int, str] | None:
        """
        Per version that all servers know: AVAILABLE where it is so at all of them, else what it is at one.

        What one has that does not answer is not known, so it does not count; None where no server answers.
        """
        found = [each.states for each in self.servers or () if not each.problem]
        if not found:
            return None
        return {
            version: next((each[version] for each in found if each[version] != "AVAILABLE"), "AVAILABLE")
            for version in set(found[0]).intersection(*found[1:])
        }

    def is_live(self, version: int) -> bool:
        """Does a label point to it, or is no other version available? Then nobody may be advised to take it out."""
        others = {each for each in self.published if each != version and self.usable(each)}
        return version in self.labels.values() or not others

    @property
    def removal(self) -> Entry | None:
        """The entry that began the removal of the model, when that was interrupted."""
        return removal.unfinished(self.entries, self.is_listed)

    @property
    def unfinished(self) -> Entry | None:
        """The entry that began a promotion or a rollback which was interrupted."""
        return promotion.unfinished(self.entries, self.labels)

    def usable(self, version: int | None) -> bool:
        """Can a label point to it?"""
        available = self.states is None or (version is not None and self.states.get(version) == "AVAILABLE")
        return version in self.published and available

    def coming(self, version: int | None) -> bool:
        """Is it published, and the server still busy with it?"""
        return (
            version in self.published
            and self.states is not None
            and (version is None or self.states.get(version) in _COMING)
        )


@dataclass(frozen=True, slots=True)
class Repair:
    """What `repair` did for one model, or would do."""

    model: str
    mended: tuple[Finding, ...]
    left: tuple[Finding, ...]
    dry_run: bool = False


def models(settings: Settings) -> list[str]:
    """Every model that the directory, ``models.config``, a journal or an open run knows."""
    repository = Repository(settings.models_repo)
    journals = {path.stem for path in (repository.root / ".journal").glob("*.jsonl")}
    configured = (entry.name for entry in parse(repository.read_config()))
    return sorted({*repository.models(), *configured, *journals, *open_runs.left(settings)})


def known_model(settings: Settings, model: str) -> str:
    """
    `model`, when one of the sides knows it.

    Raises:
        VersionNotFound: None does.
    """
    if model not in (known := models(settings)):
        raise VersionNotFound(f"There is no model {model!r}; known are: {', '.join(known) or 'none yet'}")
    return model


def find(settings: Settings, model: str) -> list[Finding]:
    """What does not agree; reads only."""
    with running_server(settings) as servers:
        return find_at(settings, model, servers)


def find_at(settings: Settings, model: str, servers: Endpoints | None) -> list[Finding]:
    """The same with servers that are connected already."""
    return list(compare(look(settings, model, servers)))


def look(settings: Settings, model: str, servers: Endpoints | None) -> Seen:
    """Every side's view of `model`."""
    repository = Repository(settings.models_repo)
    config = {entry.name: entry for entry in parse(repository.read_config())}
    entries: tuple[Entry, ...] = ()
    journal_error = ""
    try:
        entries = _entries(Journal(settings.models_repo, model))
    except BrokenJournal as exc:
        journal_error = str(exc)
    published, retired = tuple(repository.versions(model)), tuple(repository.retired(model))
    registry, registry_error = None, ""
    try:
        view = read_registry(model)
        check_same_registry(view, model, registered_here(repository, model, entries))
        registry = view
    except HotswapError as exc:
        registry_error = str(exc)
    return Seen(
        model=model,
        published=published,
        retired=retired,
        labels=dict(config[model].labels) if model in config else {},
        is_listed=model in config,
        configured=model in config and config[model].base_path == str(repository.base_path(model)),
        entries=entries,
        registry=registry,
        servers=None if servers is None or not servers else servers.view(model),
        registry_error=registry_error,
        journal_error=journal_error,
        open_runs=tuple(path.name for path in open_runs.left(settings).get(model, [])),
    )


def compare(seen: Seen) -> Iterator[Finding]:
    """Every disagreement, in the order in which `repair` goes."""
    model, step = seen.model, "`hotswap reconcile` repairs it"
    for flow_run in seen.open_runs:
        what = f"the training of flow run {flow_run} has ended, and its run in MLflow does not say so"
        yield Finding(model, None, what, step, repairable=seen.registry is not None, subject=f"run {flow_run}")
    if seen.journal_error:
        yield Finding(model, None, seen.journal_error, "put a copy of the file back, or move it away", repairable=False)
        return
    if seen.removal is not None:
        yield Finding(model, None, "the removal of the model was interrupted", step, subject="begun")
        return
    if (begun := seen.unfinished) is not None:
        what = "promotion of" if begun.action == "publish" else "rollback to"
        yield Finding(
            model, begun.version, f"the {what} version {begun.version} was interrupted", step, subject="begun"
        )
        return
    if seen.published and not seen.configured:
        yield Finding(model, None, "models.config does not have this model at its place", step, subject="config")
    journaled = replay(seen.entries)
    for version in sorted(set(seen.published) - journaled.published):
        what = f"version {version} is in the directory, but nobody published it"
        yield Finding(model, version, what, step, subject=f"directory {version}")
    for version in sorted(journaled.published - set(seen.published)):
        what = f"version {version} was published, but is gone from the directory"
        yield Finding(model, version, what, step, subject=f"directory {version}")
    yield from _label_findings(seen, journaled.labels, step)
    yield from _server_findings(seen, step)
    yield from _registry_findings(seen, journaled.published)


def is_being_changed(settings: Settings, model: str) -> bool:
    """Does another process hold the model's lock?"""
    try:
        with Repository(settings.models_repo).lock(model, timeout_seconds=0):
            return False
    except RepositoryError:
        return True


def wanted_labels(seen: Seen) -> dict[str, int]:
    """Where each label should point."""
    if seen.registry is None:
        aliases: dict[str, int] = {alias_of(label): version for label, version in seen.labels.items()}
    else:
        aliases = dict(seen.registry.aliases)
    labels = {*seen.labels, *(_label_of(alias) for alias in aliases)}
    wanted = {label: _wanted(seen, label, seen.labels.get(label), aliases.get(alias_of(label))) for label in labels}
    return {label: version for label, version in sorted(wanted.items()) if version is not None}


def repair(settings: Settings, model: str, dry_run: bool = False) -> Repair:
    """
    Make all sides agree; with `dry_run` only say what would be done.

    Raises:
        RepositoryError: Somebody else is changing the model, or the repository cannot be written.
    """
    if dry_run:
        findings = find(settings, model)
        return Repair(model, *_split(findings), dry_run=True)
    with Repository(settings.models_repo).lock(model), running_server(settings) as servers:
        before = after = find_at(settings, model, servers)
        for _ in range(_MAX_PASSES):
            if not any(finding.repairable for finding in after):
                break
            found = after
            _mend(settings, model, servers)
            after = find_at(settings, model, servers)
            if after == found:
                break
    left = {(finding.model, finding.subject) for finding in after}
    mended = tuple(finding for finding in before if (finding.model, finding.subject) not in left)
    for finding in mended:
        log.info("repaired model=%s what=%s", model, finding.what)
    return Repair(model, mended, tuple(after))


def _wanted(seen: Seen, label: str, labelled: int | None, aliased: int | None) -> int | None:
    """Where `label` should point, given where label and alias point now; None: nowhere."""
    if aliased == labelled and aliased in seen.published:
        return aliased
    if seen.usable(aliased):
        return aliased
    if seen.coming(aliased):
        return labelled
    if labelled in seen.published:
        if aliased is None and not _unregistered(seen, labelled):
            # Its alias was taken away in the registry; `stable` must stay, as clients depend on it.
            return labelled if label == STABLE else None
        if aliased is None and label == STABLE and labelled in _once_registered(seen):
            registered = [
                version for version in seen.published if seen.usable(version) and not _unregistered(seen, version)
            ]
            return _in_place_of(seen, labelled, registered) or labelled
        return labelled
    if label != STABLE:
        return None
    return _in_place_of(seen, labelled or aliased or 0, [version for version in seen.published if seen.usable(version)])


def _in_place_of(seen: Seen, gone: int | None, candidates: Sequence[int]) -> int | None:
    """Which of them becomes stable: the newest earlier one that was so before, rather than a canary or a later one."""
    canaries = {version for label, version in seen.labels.items() if label != STABLE}
    was_stable = stable_once(seen.entries)

    def rank(version: int) -> tuple[bool, bool, bool, int]:
        return version < (gone or 0), version in was_stable, version not in canaries, version

    return max(candidates, key=rank, default=None)


def _unregistered(seen: Seen, version: int | None) -> bool:
    return seen.registry is not None and version not in seen.registry.runs


def _once_registered(seen: Seen) -> set[int | None]:
    return journaled_publications(seen.entries)


def _wanted_aliases(seen: Seen, wanted: Mapping[str, int]) -> dict[str, int | None]:
    """Every alias that has to move, and where to."""
    if seen.registry is None:
        return {}
    aliases = seen.registry.aliases
    moves: dict[str, int | None] = {}
    for label in sorted({*wanted, *map(_label_of, aliases)}):
        alias, version = alias_of(label), wanted.get(label)
        if version in seen.registry.runs:
            moves[alias] = version
        elif aliases.get(alias) is not None:
            moves[alias] = None
    pending = {alias for alias, version in aliases.items() if seen.coming(version)}
    return {alias: to for alias, to in moves.items() if alias not in pending and aliases.get(alias) != to}


def _label_findings(seen: Seen, journaled: Mapping[str, int], step: str) -> Iterator[Finding]:
    model, wanted = seen.model, wanted_labels(seen)
    for label in sorted({*seen.labels, *wanted}):
        at, to = seen.labels.get(label), wanted.get(label)
        if at != to:
            what = f"label {label} is at {_told(at)}, and should be at {_told(to)}"
            yield Finding(model, to or at, what, step, subject=f"label {label}")
    for alias, to in _wanted_aliases(seen, wanted).items():
        at = None if seen.registry is None else seen.registry.aliases.get(alias)
        what = f"alias {alias} is at {_told(at)}, and should be at {_told(to)}"
        yield Finding(model, to or at, what, step, subject=f"alias {alias}")
    if journaled != wanted:
        told = ", ".join(f"{label}={version}" for label, version in sorted(wanted.items())) or "no label"
        yield Finding(model, None, f"the journal does not know of {told}", step, subject="journal")
    for alias, version in sorted((seen.registry.aliases if seen.registry else {}).items()):
        if seen.coming(version) and seen.labels.get(_label_of(alias)) != version:
            what = f"alias {alias} is at version {version}, which the server has not loaded yet"
            yield Finding(model, version, what, "wait until it is loaded", False, subject=f"alias {alias}")


def _server_findings(seen: Seen, step: str) -> Iterator[Finding]:
    servers = seen.servers or ()
    for server in servers:
        if server.problem:
            advice = f"start it, or take it out of HOTSWAP_SERVING_ENDPOINTS: {server.server}"
            subject = f"server {server.server}"
            yield Finding(seen.model, None, _no_answer(server), advice, repairable=False, subject=subject)
    for version in seen.published:
        without = [each for each in servers if each.states.get(version) != "AVAILABLE"]
        if without:
            yield _not_served(seen, version, without, step)
    for server in servers:
        if server.elsewhere or server.base_path:
            places = ", ".join(server.elsewhere.values()) or server.base_path
            what = f"the server at {server.server} serves {places}, which is not of this repository"
            yield Finding(seen.model, None, what, step, subject=f"place at {server.server}")
        if server.labels is not None and seen.published and _has_other_labels(seen, server):
            what = f"the server at {server.server} has other labels than models.config"
            yield Finding(seen.model, None, what, step, subject=f"labels at {server.server}")


def _no_answer(server: ModelAtServer) -> str:
    return f"the server at {server.server} does not answer: {server.problem}"


def _not_served(seen: Seen, version: int, without: list[ModelAtServer], step: str) -> Finding:
    servers = seen.servers or ()
    why = next((f": {each.errors[version]}" for each in without if version in each.errors), "")
    if len(servers) == 1 and not servers[0].problem:
        what = f"version {version} is published, and the server has it as {_state_of(servers[0], version)}{why}"
    else:
        states = ", ".join(f"{each.server} {_state_reported(each, version)}" for each in without)
        what = f"version {version} is served by {len(servers) - len(without)} of {len(servers)}: {states}{why}"
    answering = [each for each in without if not each.problem]
    reloadable = [each for each in answering if _needs_reload(each, version)]
    if reloadable:
        next_step = step
    elif any(each.states.get(version) in _COMING for each in answering):
        next_step = "wait until it is loaded"
    elif not answering:
        next_step = f"start the server at {', '.join(each.server for each in without)}"
    elif seen.is_live(version) or len(without) < len(servers):
        next_step = f"see the log of the server at {', '.join(each.server for each in answering)}, and restart it"
    else:
        next_step = f"see the server's log, or take it out with `hotswap retire {seen.model} {version}`"
    repairable = bool(reloadable)
    return Finding(seen.model, version, what, next_step, repairable, subject=f"served {version}")


def _is_behind(seen: Seen, server: ModelAtServer) -> bool:
    """Would a reload change which versions it has?"""
    return bool(server.elsewhere or server.base_path) or any(
        _needs_reload(server, version) for version in seen.published
    )


def _state_reported(server: ModelAtServer, version: int) -> str:
    return "does not answer" if server.problem else f"has it as {_state_of(server, version)}"


def _state_of(server: ModelAtServer, version: int) -> str:
    return server.states.get(version, "not known")


def _needs_reload(server: ModelAtServer, version: int) -> bool:
    """Does it not know that it should have the version?"""
    gone = server.states.get(version) in (None, "END") and version not in server.errors
    return not server.problem and gone


def _has_other_labels(seen: Seen, server: ModelAtServer) -> bool:
    """A label that points to what is not available may be there or not."""
    served = server.labels or {}
    wanted = {label: at for label, at in seen.labels.items() if server.states.get(at) == "AVAILABLE"}
    return any(served.get(label) != at for label, at in wanted.items()) or not served.items() <= seen.labels.items()


def _registry_findings(seen: Seen, journaled: set[int]) -> Iterator[Finding]:
    if seen.registry is None:
        step = "check MLFLOW_TRACKING_URI, and that it runs"
        yield Finding(seen.model, None, seen.registry_error, step, repairable=False, subject="registry")
        return
    for version in _lost(seen):
        if version in journaled:
            what = f"version {version} is served, but the registry has lost it"
            again = _can_be_registered_again(seen, version)
            step = "`hotswap reconcile` registers it again" if again else _after_loss(seen, version)
            yield Finding(seen.model, version, what, step, repairable=again, subject=f"registry {version}")


def _after_loss(seen: Seen, version: int) -> str:
    """The next step for a version that the registry cannot take back; never one that takes away what is in use."""
    if seen.is_live(version) or version == max(seen.published):
        return "it goes on answering; the next training that passes takes its place"
    return f"`hotswap retire {seen.model} {version}`"


def _lost(seen: Seen) -> list[int]:
    """The published versions that were registered once."""
    once = _once_registered(seen)
    return [version for version in seen.published if version in once and _unregistered(seen, version)]


def _can_be_registered_again(seen: Seen, version: int) -> bool:
    """MLflow numbers upwards, so only what is above all it has; and it is tried once, as each trial costs a number."""
    tried = any(version in entry.facts.get("lost", []) for entry in seen.entries)
    return seen.registry is not None and not tried and version > max(seen.registry.runs, default=0)


def _mend(settings: Settings, model: str, servers: Endpoints | None) -> None:
    seen = look(settings, model, servers)
    if seen.open_runs and seen.registry is not None:
        open_runs.close(settings, promotion.open_registry(settings, model), model)
    if seen.journal_error:
        return
    if seen.removal is not None or seen.unfinished is not None:
        promotion.tidy(settings, promotion.open_registry(settings, model), model)
        seen = look(settings, model, servers)
    repository = Repository(settings.models_repo)
    if seen.published and (not seen.configured or any(_is_behind(seen, each) for each in seen.servers or ())):
        labelling.restore(settings, model, seen.labels)
        if servers is not None:
            servers.each_reachable(lambda server: server.wait_settled(model, seen.published))
            seen = look(settings, model, servers)
    lost = [version for version in _lost(seen) if _can_be_registered_again(seen, version)]
    if lost:
        lost = [version for version in lost if not _register_again(settings, model, version)]
        seen = look(settings, model, servers)
    wanted = _mend_labels(settings, seen)
    moves = _wanted_aliases(seen, wanted)
    if moves:
        registry = promotion.open_registry(settings, model)
        for alias, version in moves.items():
            registry.set_alias(model, alias, version)
    _mend_journal(settings, repository, seen, wanted, lost)
    if servers is not None and seen.published:
        removed = sorted(set(seen.states or ()) - set(seen.published))
        servers.each(lambda server: server.wait_gone(model, removed))


def _register_again(settings: Settings, model: str, version: int) -> bool:
    """Give the served files of a version to the registry, under its number; False where that cannot be."""
    repository = Repository(settings.models_repo)
    path, stamp = repository.path(model, version), repository.stamp(model, version)
    if "golden" not in stamp or "run_id" not in stamp or digest(path) != stamp.get("digest"):
        return False
    registry = promotion.open_registry(settings, model)
    example, output = (np.asarray(stamp["golden"][key], np.float32) for key in ("inputs", "outputs"))
    with workspace() as directory:
        saved_model = directory / "saved_model"
        shutil.copytree(path, saved_model, ignore=shutil.ignore_patterns(STAMP.name))
        model_uri = registry.log_model(stamp["run_id"], saved_model, example, output)
    return registry.register_again(stamp["run_id"], model, version, model_uri, stamp["digest"])


def _mend_labels(settings: Settings, seen: Seen) -> dict[str, int]:
    """Move the labels that can be moved; where all labels are then."""
    repository, wanted = Repository(settings.models_repo), wanted_labels(seen)
    reached = {label: version for label, version in seen.labels.items() if label in wanted}
    for label, version in wanted.items():
        if seen.labels.get(label) == version:
            continue
        try:
            labelling.move(settings, seen.model, label, version)
            reached[label] = version
        except (ServerUnavailable, DeadlineExceeded):
            raise
        except HotswapError as exc:
            # The alias goes back to where the label stays.
            log.warning("label not moved model=%s label=%s version=%d error=%s", seen.model, label, version, exc)
    seen = replace(seen, labels=reached)
    told = any(_has_other_labels(seen, server) for server in seen.servers or () if server.labels is not None)
    if told or reached != labelling.read(repository, seen.model):
        labelling.restore(settings, seen.model, reached)
    return reached


def _mend_journal(
    settings: Settings, repository: Repository, seen: Seen, wanted: Mapping[str, int], lost: list[int]
) -> None:
    journal = Journal(settings.models_repo, seen.model)
    known = replay(journal.read())
    added = sorted(set(seen.published) - known.published)
    removed = sorted(known.published - set(seen.published))
    if not added and not removed and not lost and known.labels == wanted:
        return
    live = wanted.get(STABLE)
    journal.append(
        "reconcile",
        version=live,
        previous=known.labels.get(STABLE),
        labels=dict(wanted),
        added=added or None,
        removed=removed or None,
        lost=lost or None,
        digests={str(version): digest(repository.path(seen.model, version)) for version in added} or None,
        run_id=None if live is None else repository.stamp(seen.model, live).get("run_id"),
        digest=None if live is None else repository.stamp(seen.model, live).get("digest"),
        why="directory or registry were changed by hand",
    )


def _label_of(alias: str) -> str:
    return {alias_of(label): label for label in (STABLE, "canary")}.get(alias, alias)


def _told(version: int | None) -> str:
    return "no version" if version is None else f"version {version}"


def _split(findings: list[Finding]) -> tuple[tuple[Finding, ...], tuple[Finding, ...]]:
    mended = tuple(finding for finding in findings if finding.repairable)
    return mended, tuple(finding for finding in findings if not finding.repairable)


def _entries(journal: Journal) -> tuple[Entry, ...]:
    """The journal's entries; read again only when the file has changed."""
    try:
        stat = journal.path.stat()
    except FileNotFoundError:
        return ()
    return _read_entries(journal.path, stat.st_ino, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _read_entries(path: Path, *_changed: int) -> tuple[Entry, ...]:
    return tuple(Journal(path.parent.parent, path.stem).read())
