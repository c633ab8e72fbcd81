"""Which versions are there, in which state, and what does not agree about them?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flows import drift
from flows.drift import Seen
from flows.live_server import running_server
from flows.settings import Settings
from serving.errors import VersionNotFound
from serving.repository import Repository


@dataclass(frozen=True, slots=True)
class VersionRow:
    """One version, as disk, server and registry see it."""

    model: str
    version: int
    state: str
    """the server's state, or RETIRED, NOT SERVED, or MISSING for what a label or alias points to and is not there"""
    labels: tuple[str, ...]
    aliases: tuple[str, ...]
    accuracy: float | None
    run_id: str | None
    digest: str | None
    published_at: str | None
    drift: tuple[str, ...] = ()
    """what does not agree about it; what is about the whole model is told with the newest version"""


def status(settings: Settings, model: str | None = None) -> list[VersionRow]:
    """
    Every version of `model`, or of all models, newest first.

    Raises:
        VersionNotFound: There is no such model.
    """
    repository = Repository(settings.models_repo)
    if model is not None and model not in repository.models():
        known = ", ".join(repository.models()) or "none yet"
        raise VersionNotFound(f"There is no model {model!r} in {repository.root}; known are: {known}")
    with running_server(settings) as servers:
        models = repository.models() if model is None else [model]
        return [row for each in models for row in _rows(repository, drift.look(settings, each, servers))]


def _rows(repository: Repository, seen: Seen) -> list[VersionRow]:
    findings = list(drift.compare(seen))
    aliases = {} if seen.registry is None else seen.registry.aliases
    versions = sorted({*seen.published, *seen.retired, *seen.labels.values(), *aliases.values()}, reverse=True)
    rows = []
    for version in versions:
        stamp = repository.stamp(seen.model, version)
        about = {version, None} if version == versions[0] else {version}
        rows.append(
            VersionRow(
                model=seen.model,
                version=version,
                state=_state(version, seen.published, seen.retired, seen.states or {}),
                labels=tuple(sorted(label for label, at in seen.labels.items() if at == version)),
                aliases=tuple(sorted(alias for alias, at in aliases.items() if at == version)),
                accuracy=stamp.get("metrics", {}).get("test_accuracy"),
                run_id=stamp.get("run_id"),
                digest=stamp.get("digest"),
                published_at=stamp.get("published_at"),
                drift=tuple(finding.what for finding in findings if finding.version in about),
            )
        )
    return rows


def _state(version: int, published: Sequence[int], retired: Sequence[int], states: Mapping[int, str]) -> str:
    if version in published:
        return states.get(version, "NOT SERVED")
    return "RETIRED" if version in retired else "MISSING"
