"""Where does a version come from, and are its files still those that were judged?"""

from __future__ import annotations

from dataclasses import dataclass

from flows.endpoints.servers import Servers
from flows.endpoints.views import NOT_SERVED, state_reported
from flows.journal import Journal
from flows.promotion.labels import Labels
from flows.registry.reader import read_run_tags, read_version_tags
from flows.settings import Settings
from serving.protocol.errors import VersionNotFound
from serving.repository.saved_model_files import digest
from serving.repository.store import Repository

_UNKNOWN = "not known"


@dataclass(frozen=True, slots=True)
class Explanation:
    """The way from served bytes back to data and code."""

    model: str
    version: int
    state: str
    labels: tuple[str, ...]
    path: str
    digest: str
    """of the files on disk, computed now"""
    stamped_digest: str | None
    registered_digest: str | None
    served_digest: str | None
    run_id: str | None
    dataset_digest: str | None
    git_commit: str | None
    git_dirty: bool | None
    gate: str | None
    gate_reason: str | None
    metrics: dict[str, float]
    journal: tuple[str, ...]
    """what happened to it, oldest first"""
    problems: tuple[str, ...]


def explain(settings: Settings, model: str, version: int) -> Explanation:
    """
    Everything that is recorded of one version, held against its files.

    Raises:
        VersionNotFound: It is neither published nor retired.
    """

    repository = Repository(settings.models_repo)
    published, retired = repository.versions(model), repository.retired(model)
    if version not in (*published, *retired):
        there = ", ".join(map(str, sorted({*published, *retired}))) or "none"
        raise VersionNotFound(f"Version {version} of {model!r} is not on disk; there are: {there}")
    path = repository.path(model, version) if version in published else repository.retired_path(model, version)
    stamp, on_disk = repository.stamp(model, version), digest(path)
    registered = read_version_tags(model, version)
    run = read_run_tags(stamp.run_id) if stamp.run_id else {}
    state, served = _served(settings, model, version, on_disk)
    digests = {
        "the stamp": stamp.digest,
        "the registry": registered.get("hotswap.digest"),
        "the server": served,
    }
    dirty = run.get("hotswap.git_dirty")
    entries = [entry for entry in Journal(settings.models_repo, model).read() if _is_about(entry.facts, version)]
    return Explanation(
        model=model,
        version=version,
        state=state if version in published else "RETIRED",
        labels=Labels(repository, model).carried_by(version),
        path=str(path),
        digest=on_disk,
        stamped_digest=digests["the stamp"],
        registered_digest=digests["the registry"],
        served_digest=served,
        run_id=stamp.run_id,
        dataset_digest=stamp.dataset_digest or run.get("hotswap.dataset_digest"),
        git_commit=run.get("mlflow.source.git.commit"),
        git_dirty=None if dirty is None else dirty == "true",
        gate=run.get("hotswap.gate"),
        gate_reason=run.get("hotswap.gate_reason"),
        metrics=dict(stamp.metrics),
        journal=tuple(f"{entry.time} {entry.action} by {entry.who}" for entry in entries),
        problems=tuple(_problems(path.name, on_disk, digests)),
    )


def lines(told: Explanation) -> list[tuple[str, str]]:
    """The chain as a person reads it, from the served bytes to the verdict."""
    dirty = " (with changes that were not committed)" if told.git_dirty else ""
    return [
        ("version", f"{told.model} {told.version}, {told.state} {', '.join(told.labels)}".rstrip(" ,")),
        ("files", told.path),
        ("digest", told.digest),
        ("run", told.run_id or _UNKNOWN),
        ("data", told.dataset_digest or _UNKNOWN),
        ("git commit", f"{told.git_commit}{dirty}" if told.git_commit else _UNKNOWN),
        ("gate", f"{told.gate} {told.gate_reason or ''}".rstrip() if told.gate else _UNKNOWN),
        ("metrics", "  ".join(f"{name} {value:.4f}" for name, value in told.metrics.items()) or _UNKNOWN),
        *(("journal", entry) for entry in told.journal),
        *(("problem", problem) for problem in told.problems),
    ]


def _problems(version: str, on_disk: str, digests: dict[str, str | None]) -> list[str]:
    problems = [
        f"the files on disk have another digest than {who} ({told})"
        for who, told in digests.items()
        if told is not None and told != on_disk
    ]
    if not any(digests.values()):
        problems.append(f"nobody published version {version}: there is nothing to hold its files against")
    elif digests["the registry"] is None:
        problems.append("the registry does not know this version")
    return problems


def _served(settings: Settings, model: str, version: int, on_disk: str) -> tuple[str, str | None]:
    """State and digest that the servers tell; of different digests one that is not that of the files."""
    with Servers(settings, Repository(settings.models_repo)).observed() as servers:
        if not servers:
            return NOT_SERVED, None
        digests = set(servers.each_reachable(lambda server: server.digest(model, version))) - {None}
        other = next(iter(digests - {on_disk}), None)
        return state_reported(servers.view(model), version), other or next(iter(digests), None)


def _is_about(facts: object, version: int) -> bool:
    if not isinstance(facts, dict):
        return False
    return version in (facts.get("version"), facts.get("previous"), *facts.get("retired", []), *facts.get("added", []))
