"""Examines repository, registry, Prefect and servers, and names the next step for all that is wrong; it only reads."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from flows.endpoints.servers import Servers
from flows.orchestration import open_runs
from flows.orchestration.prefect_access import PrefectUnavailable
from flows.orchestration.prefect_server import find_running_prefect
from flows.promotion.deployment import Deployment
from flows.reconciliation.findings import Finding, compare
from flows.reconciliation.state import Snapshot, known_models, take_snapshot
from flows.registry.reader import RegistryUnread, check_readable
from flows.settings import Settings
from serving.protocol.errors import IncompleteSavedModel, InvalidRequest, UntrustedVersion
from serving.protocol.redaction import redacted
from serving.repository.model_config import parse
from serving.repository.replica import read_problems
from serving.repository.saved_model_files import check_complete, digest
from serving.repository.signatures import check_version
from serving.repository.stamp import STAMP_FILE
from serving.repository.store import Repository

_NEARLY_FULL_BYTES = 1 << 30
_NEARLY_FULL_SHARE = 0.02
_OURS = ("README.md", "models.config")
_EVERYTHING = "everything"
NO_SERVER = "no server"
"""the subject of the finding that no model server runs"""
_SERVER_STEP = "`hotswap status` shows home, repository and servers; start the one that is down, or name your own"


def examine(settings: Settings) -> list[Finding]:
    """Everything that is wrong with the models repository, the registry, Prefect and the servers."""
    repository = Repository(settings.models_repo)
    found = [
        *_disk(settings),
        *_writable_by_all(settings),
        *_notify(settings),
        *_foreign_files(repository),
        *_leftovers(repository),
        *_config(repository),
    ]
    if any(finding.model == "models.config" for finding in found):
        return found
    found += _not_fetched(repository)
    models = known_models(settings)
    found += [*_prefect(settings), *([] if models else _mlflow())]
    with Servers(settings, repository).observed() as servers:
        if servers is None:
            found += _no_server(settings, repository)
        else:
            found += [_by_hand(_EVERYTHING, problem, _SERVER_STEP) for problem in servers.problems.values()]
        for model in models:
            snapshot = take_snapshot(Deployment(settings, model), servers)
            found += [*_files(repository, snapshot), *_stamps(repository, snapshot), *compare(snapshot)]
            found += _signatures(settings, repository, snapshot)
    return found


def _no_server(settings: Settings, repository: Repository) -> Iterator[Finding]:
    if any(repository.versions(model) for model in repository.models()):
        what = f"no model server runs at {settings.rest_url} and {settings.grpc_target}, so nothing is served"
        step = "start one with `hotswap up` or `hotswap serve`"
        yield Finding(_EVERYTHING, None, what, step, repairable=False, subject=NO_SERVER)


def _mlflow() -> Iterator[Finding]:
    """Where there are models, each reports this itself."""
    try:
        check_readable()
    except RegistryUnread as exc:
        yield _by_hand(_EVERYTHING, str(exc), "`hotswap train` needs it to record its runs")


def _prefect(settings: Settings) -> Iterator[Finding]:
    if "PREFECT_API_URL" in os.environ and not find_running_prefect(settings):
        what = f"no Prefect server answers at PREFECT_API_URL={redacted(os.environ['PREFECT_API_URL'])}"
        yield _by_hand(_EVERYTHING, what, "start it, or unset the variable: `hotswap train` needs one")
        return
    try:
        for flow_run in open_runs.still_running(settings):
            what = f"Prefect shows flow run {flow_run} as running, but its process has ended"
            yield _by_hand(_EVERYTHING, what, "`hotswap reconcile` ends it")
    except PrefectUnavailable as exc:
        yield _by_hand(_EVERYTHING, str(exc), "`hotswap train` needs Prefect to record its steps")


def _disk(settings: Settings) -> Iterator[Finding]:
    for place in (settings.models_repo.absolute(), settings.home.absolute()):
        there = next(each for each in (place, *place.parents) if each.exists())
        usage = shutil.disk_usage(there)
        if usage.free < min(_NEARLY_FULL_BYTES, usage.total * _NEARLY_FULL_SHARE):
            what = f"the disk of {place} is nearly full: {usage.free / 1e6:.0f} MB are free"
            yield _by_hand(_EVERYTHING, what, "free some space, or retire and delete old versions")


def _writable_by_all(settings: Settings) -> Iterator[Finding]:
    """What every user of the machine could change, and with it what is served."""
    repository, home = Repository(settings.models_repo), settings.home.absolute()
    models = [repository.base_path(model) for model in repository.models()]
    versions = [repository.path(model.name, version) for model in models for version in repository.versions(model.name)]
    files = repository.config_path, repository.root / ".journal", home / "mlflow.db", home / "artifacts"
    for place in (repository.root, home, *models, *versions, *files):
        if place.exists() and place.stat().st_mode & stat.S_IWOTH:
            yield _by_hand(_EVERYTHING, f"every user of this machine may write to {place}", f"`chmod o-w {place}`")


def _notify(settings: Settings) -> Iterator[Finding]:
    if not settings.notify.get_secret_value():
        return
    from flows.events.notifications import are_understood  # Apprise takes a while to import

    if not are_understood(settings):
        what = "HOTSWAP_NOTIFY has an address that is not understood, so nobody is told there"
        yield _by_hand(_EVERYTHING, what, "write it as Apprise does, such as slack://…, mailto://… or json://…")


def _foreign_files(repository: Repository) -> Iterator[Finding]:
    for path in _entries(repository.root):
        if path.is_file() and path.name not in _OURS and not path.name.startswith("."):
            yield _by_hand(_EVERYTHING, f"{path} does not belong here", "move it elsewhere")
    for model in repository.models():
        for path in _entries(repository.base_path(model)):
            if not (
                path.is_dir() and path.name.isascii() and path.name.isdecimal() and path.name == str(int(path.name))
            ):
                yield _by_hand(model, f"{path} is not a version", "move it elsewhere")


def _not_fetched(repository: Repository) -> Iterator[Finding]:
    """Of a directory that follows a repository elsewhere, what its agent cannot get."""
    for model, versions in read_problems(repository.root).items():
        for version, why in versions.items():
            yield _by_hand(model, f"version {version} cannot be fetched: {why}", "see the log of `hotswap agent` here")


def _leftovers(repository: Repository) -> Iterator[Finding]:
    if repository.is_replica:
        return  # its agent goes on with them
    for path in _entries(repository.root / ".staging"):
        model = path.name
        if path.is_dir() and any(path.iterdir()) and not repository.is_locked(model):
            step = "the next training removes it, or remove it yourself"
            yield _by_hand(model, f"{path} is left over from an interrupted publish", step)
    for path in _entries(repository.root / ".locks"):
        # The kernel frees a lock with its process; what cannot be opened as a file never becomes free.
        if not path.is_file() or not os.access(path, os.R_OK | os.W_OK):
            step = "remove it while no training runs"
            yield _by_hand(path.stem, f"{path} is not a lock that can be taken", step)


def _config(repository: Repository) -> Iterator[Finding]:
    try:
        parse(repository.read_config())
    except (InvalidRequest, OSError) as exc:
        step = f"move {repository.config_path} away, and `hotswap reconcile` writes it again"
        yield _by_hand("models.config", str(exc), step)


def _step_for(snapshot: Snapshot, version: int) -> str:
    """The next step for a version whose files are wrong; what is live is never taken out."""
    if snapshot.is_live(version):
        promote = f"`hotswap train {snapshot.model}`"
        return f"it is live: promote another version before a server has to load it again ({promote})"
    return f"`hotswap retire {snapshot.model} {version}` takes it out"


def _files(repository: Repository, snapshot: Snapshot) -> Iterator[Finding]:
    """Compares the published files with their stamps."""
    model = snapshot.model
    for version in snapshot.published:
        path, stamp = repository.path(model, version), repository.stamp(model, version)
        retire = _step_for(snapshot, version)
        try:
            check_complete(path)
        except IncompleteSavedModel as exc:
            yield Finding(model, version, str(exc), retire, repairable=False)
            continue
        if not (path / STAMP_FILE).exists():
            continue
        if digest(path) != stamp.digest:
            what = f"the files of version {version} are not those that were published"
            yield Finding(model, version, what, f"`hotswap explain {model} {version}`; {retire}", repairable=False)


def _stamps(repository: Repository, snapshot: Snapshot) -> Iterator[Finding]:
    """Compares the stamps with the journal."""
    digests = {entry.version: entry.facts.get("digest") for entry in snapshot.entries if entry.action == "publish"}
    for version in snapshot.published:
        stamped = repository.stamp(snapshot.model, version).digest
        if digests.get(version) not in (None, stamped):
            what = f"the stamp of version {version} has another digest than the journal"
            yield Finding(snapshot.model, version, what, _step_for(snapshot, version), repairable=False)


def _signatures(settings: Settings, repository: Repository, snapshot: Snapshot) -> Iterator[Finding]:
    """What servers refuse that only serve what a trusted key has signed."""
    if (trusted := settings.trusted_keys_file) is None:
        return
    for version in snapshot.published:
        try:
            check_version(repository.path(snapshot.model, version), snapshot.model, version, trusted)
        except (UntrustedVersion, InvalidRequest) as exc:
            yield Finding(snapshot.model, version, str(exc), _step_for(snapshot, version), repairable=False)


def _entries(directory: Path) -> list[Path]:
    return sorted(directory.iterdir()) if directory.is_dir() else []


def _by_hand(about: str, what: str, next_step: str) -> Finding:
    return Finding(about, None, what, next_step, repairable=False)
