"""Follows a version back to run, data and code, and checks that its files are still those that were judged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flows.endpoints.views import NOT_SERVED, state_reported
from flows.promotion.deployment import Deployment
from flows.registry.reader import read_run_tags, read_version_tags
from serving.protocol.errors import VersionNotFound
from serving.repository.saved_model_files import digest

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
    unevaluated: str | None
    """why it was not evaluated, where it was not"""
    journal: tuple[str, ...]
    """what happened to it, oldest first"""
    problems: tuple[str, ...]


def explain(deployment: Deployment, version: int) -> Explanation:
    """
    Everything that is recorded of one version, compared with its files.

    Raises:
        VersionNotFound: It is neither published nor retired.
    """
    model = deployment.model
    path, is_published = _find(deployment, version)
    stamp, on_disk = deployment.stamp(version), digest(path)
    run = read_run_tags(stamp.run_id) if stamp.run_id else {}
    state, served = _served(deployment, version, on_disk)
    registered = read_version_tags(model, version).get("hotswap.digest")
    dirty = run.get("hotswap.git_dirty")
    return Explanation(
        model=model,
        version=version,
        state=state if is_published else "RETIRED",
        labels=deployment.labels.carried_by(version),
        path=str(path),
        digest=on_disk,
        stamped_digest=stamp.digest,
        registered_digest=registered,
        served_digest=served,
        run_id=stamp.run_id,
        dataset_digest=stamp.dataset_digest or run.get("hotswap.dataset_digest"),
        git_commit=run.get("mlflow.source.git.commit"),
        git_dirty=None if dirty is None else dirty == "true",
        gate=run.get("hotswap.gate"),
        gate_reason=run.get("hotswap.gate_reason"),
        metrics=dict(stamp.metrics),
        unevaluated=stamp.unevaluated,
        journal=_journal(deployment, version),
        problems=_problems(version, on_disk, stamp.digest, registered, served),
    )


def lines(found: Explanation) -> list[tuple[str, str]]:
    """The chain as a person reads it, from the served bytes to the verdict."""
    dirty = " (with changes that were not committed)" if found.git_dirty else ""
    return [
        ("version", f"{found.model} {found.version}, {found.state} {', '.join(found.labels)}".rstrip(" ,")),
        ("files", found.path),
        ("digest", found.digest),
        ("run", found.run_id or _UNKNOWN),
        ("data", found.dataset_digest or _UNKNOWN),
        ("git commit", f"{found.git_commit}{dirty}" if found.git_commit else _UNKNOWN),
        ("gate", f"{found.gate} {found.gate_reason or ''}".rstrip() if found.gate else _UNKNOWN),
        ("metrics", "  ".join(f"{name} {value:.4f}" for name, value in found.metrics.items()) or _UNKNOWN),
        *([("evaluated", f"no: {found.unevaluated}")] if found.unevaluated else []),
        *(("journal", entry) for entry in found.journal),
        *(("problem", problem) for problem in found.problems),
    ]


def _find(deployment: Deployment, version: int) -> tuple[Path, bool]:
    """The directory of a version, and whether it is published."""
    repository, model = deployment.repository, deployment.model
    published, retired = repository.versions(model), repository.retired(model)
    if version in published:
        return repository.path(model, version), True
    if version in retired:
        return repository.retired_path(model, version), False
    on_disk = ", ".join(map(str, sorted({*published, *retired}))) or "none"
    raise VersionNotFound(f"Version {version} of {model!r} is not on disk; there are: {on_disk}")


def _problems(
    version: int, on_disk: str, stamped: str | None, registered: str | None, served: str | None
) -> tuple[str, ...]:
    digests = {"the stamp": stamped, "the registry": registered, "the server": served}
    if not any(digests.values()):
        return (f"version {version} was never published: there is nothing to compare its files with",)
    problems = [
        f"the files on disk have another digest than {where} ({other})"
        for where, other in digests.items()
        if other not in (None, on_disk)
    ]
    return (*problems, "the registry does not know this version") if registered is None else tuple(problems)


def _served(deployment: Deployment, version: int, on_disk: str) -> tuple[str, str | None]:
    """State and digest that the servers report; of different digests one that is not that of the files."""
    with deployment.servers.observed() as servers:
        if not servers:
            return NOT_SERVED, None
        digests = set(servers.each_reachable(lambda server: server.digest(deployment.model, version))) - {None}
        other = next(iter(digests - {on_disk}), None)
        return state_reported(servers.view(deployment.model), version), other or next(iter(digests), None)


def _journal(deployment: Deployment, version: int) -> tuple[str, ...]:
    entries = [entry for entry in deployment.journal.read() if _is_about(entry.facts, version)]
    return tuple(f"{entry.time} {entry.action} by {entry.who}" for entry in entries)


def _is_about(facts: object, version: int) -> bool:
    if not isinstance(facts, dict):
        return False
    return version in (facts.get("version"), facts.get("previous"), *facts.get("retired", []), *facts.get("added", []))
