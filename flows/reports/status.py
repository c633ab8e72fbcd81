"""Lists all versions with their states, labels and aliases, and what does not agree about them."""

from __future__ import annotations

from dataclasses import dataclass

from flows.endpoints.servers import Endpoints, Servers
from flows.endpoints.views import state_reported
from flows.machine.instance import running_services
from flows.promotion import removal
from flows.promotion.deployment import Deployment
from flows.reconciliation.findings import compare
from flows.reconciliation.state import Snapshot, take_snapshot
from flows.settings import Settings
from serving.protocol.errors import VersionNotFound
from serving.protocol.redaction import redacted
from serving.repository.store import Repository


@dataclass(frozen=True, slots=True)
class VersionRow:
    """One version, as disk, server and registry see it."""

    model: str
    version: int
    state: str
    """
    The server's state, ``served by 1 of 2``, RETIRED, NOT SERVED, or MISSING where a label or alias points to a version
    that does not exist.
    """
    labels: tuple[str, ...]
    aliases: tuple[str, ...]
    accuracy: float | None
    run_id: str | None
    digest: str | None
    published_at: str | None
    metric: str | None = None
    """the name of the first metric that it was published with"""
    measured: float | None = None
    """its value on the held-out rows"""
    findings: tuple[str, ...] = ()
    """what does not agree about it; what is about the whole model stands with the newest version"""


@dataclass(frozen=True, slots=True)
class Overview:
    """Home, repository, servers, and all versions."""

    home: str
    repository: str
    repository_id: str | None
    """None where nothing has been written to it yet"""
    servers: tuple[ServerRow, ...]
    versions: tuple[VersionRow, ...]
    services: tuple[ServiceRow, ...] = ()
    """the processes of the `hotswap up` of this home; empty where it is not up"""


@dataclass(frozen=True, slots=True)
class ServiceRow:
    """One process of `hotswap up`."""

    name: str
    state: str
    """``ready``, ``starting``, or ``waits for its next start``"""
    url: str
    """empty for one that does not listen"""
    pid: int | None
    """None while it does not run"""
    log: str


@dataclass(frozen=True, slots=True)
class ServerRow:
    """One endpoint."""

    rest: str
    grpc: str
    problem: str = ""
    """why it does not serve the repository"""


def status(settings: Settings, model: str | None = None) -> list[VersionRow]:
    """
    Every version of `model`, or of all models, newest first.

    Raises:
        VersionNotFound: There is no such model.
    """
    return list(overview(settings, model).versions)


def overview(settings: Settings, model: str | None = None) -> Overview:
    """As `status`, with home, repository and servers."""
    repository = Repository(settings.models_repo)
    if model is not None and model not in repository.models():
        known = ", ".join(repository.models()) or "none yet"
        hint = removal.way_back(Deployment(settings, model))
        raise VersionNotFound(f"There is no model {model!r} in {repository.root}; known are: {known}{hint}")
    with Servers(settings, repository).observed() as servers:
        models = repository.models() if model is None else [model]
        rows = [row for each in models for row in _rows(Deployment(settings, each), servers)]
    home = str(settings.home.absolute())
    services = tuple(ServiceRow(**each) for each in running_services(settings.home))
    named = (home, str(repository.root), repository.identity())
    return Overview(*named, _server_rows(settings, servers), tuple(rows), services)


def _server_rows(settings: Settings, servers: Endpoints | None) -> tuple[ServerRow, ...]:
    problems = None if servers is None else servers.problems

    def problem(url: str) -> str:
        return f"No server runs at {url}: `hotswap up` starts one" if problems is None else problems.get(url, "")

    return tuple(
        ServerRow(url, each.grpc_target, problem(url))
        for each in settings.endpoints
        for url in [redacted(each.rest_url)]
    )


def _rows(deployment: Deployment, servers: Endpoints | None) -> list[VersionRow]:
    snapshot = take_snapshot(deployment, servers)
    findings = list(compare(snapshot))
    aliases = {} if snapshot.registry is None else snapshot.registry.aliases
    pointed_to = {*snapshot.labels.values(), *aliases.values()}
    versions = sorted({*snapshot.published, *snapshot.retired, *pointed_to}, reverse=True)
    rows = []
    for version in versions:
        stamp = deployment.stamp(version)
        metric, measured = next(iter(stamp.metrics.items()), (None, None))
        about = {version, None} if version == versions[0] else {version}
        rows.append(
            VersionRow(
                model=deployment.model,
                version=version,
                state=_state(version, snapshot),
                labels=tuple(sorted(label for label, at in snapshot.labels.items() if at == version)),
                aliases=tuple(sorted(alias for alias, at in aliases.items() if at == version)),
                accuracy=stamp.metrics.get("test_accuracy"),
                run_id=stamp.run_id,
                digest=stamp.digest,
                published_at=stamp.published_at,
                metric=metric and metric.removeprefix("test_"),
                measured=measured,
                findings=tuple(finding.what for finding in findings if finding.version in about),
            )
        )
    return rows


def _state(version: int, snapshot: Snapshot) -> str:
    if version in snapshot.published:
        return state_reported(snapshot.servers or (), version)
    return "RETIRED" if version in snapshot.retired else "MISSING"
