"""What a comparison of the logged requests with the training data has come to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from flows.data.rows import Inputs
from flows.drift.answers import answer_columns
from flows.drift.columns import Column, Kind, columns_of
from flows.drift.comparison import ColumnDrift, Limits, compare, decided
from flows.drift.logged import Logged
from flows.drift.profile import ColumnProfile, Profile
from flows.drift.truth import LiveScore
from serving.request_log.columns import hash_of

_MAX_NAMED = 5


class Verdict(StrEnum):
    """What the comparison says."""

    STABLE = "stable"
    """nothing has drifted"""
    DRIFTED = "drifted"
    TOO_LITTLE_DATA = "too little data"


@dataclass(frozen=True, slots=True)
class DriftReport:
    """One model's requests beside its training data."""

    model: str
    version: int
    """whose training data it is"""
    since: str | None
    rows: int
    """that were compared"""
    answered: int
    """of these, answered by this version"""
    limits: Limits
    columns: tuple[ColumnDrift, ...]
    """of the inputs"""
    answers: tuple[ColumnDrift, ...]
    """the class mix and how sure the answers are, or their values, beside those to the held-out rows"""
    live: LiveScore | None = None
    """how good the answers were, where the truth is given"""

    @property
    def verdict(self) -> Verdict:
        if self.rows < self.limits.min_rows:
            return Verdict.TOO_LITTLE_DATA
        return Verdict.DRIFTED if self.drifted else Verdict.STABLE

    @property
    def all_columns(self) -> tuple[ColumnDrift, ...]:
        """Those of the inputs and of the answers."""
        return (*self.columns, *self.answers)

    @property
    def drifted(self) -> tuple[str, ...]:
        """The names of what has drifted, the largest change first."""
        found = [each for each in self.all_columns if each.drifted]
        return tuple(each.name for each in sorted(found, key=lambda each: -(each.psi or 0.0)))

    @property
    def reason(self) -> str:
        """The verdict in a sentence."""
        since = f" since {self.since}" if self.since else ""
        if self.verdict is Verdict.TOO_LITTLE_DATA:
            return (
                f"{self.rows} rows of {self.model} were logged{since}, and {self.limits.min_rows} are needed to "
                "compare them with the training data"
            )
        beside = f"{self.rows:,} rows logged{since} beside the training data of version {self.version}"
        if not self.drifted:
            return f"{self.model} has not drifted: {beside}"
        shown = ", ".join(self.drifted[:_MAX_NAMED])
        more = f" and {len(self.drifted) - _MAX_NAMED} more" if len(self.drifted) > _MAX_NAMED else ""
        return f"{self.model} has drifted in {shown}{more}: {beside}"

    @property
    def data(self) -> dict[str, Any]:
        """All of it, as ``json`` can write it."""
        return {"verdict": self.verdict, "reason": self.reason, "drifted": list(self.drifted), **asdict(self)}

    @property
    def metrics(self) -> dict[str, float]:
        """The numbers that a run records."""
        psi = {f"psi.{each.name}": each.psi for each in self.all_columns if each.psi is not None}
        found = {"rows": self.rows, "drifted_columns": len(self.drifted), **psi}
        if self.live is not None:
            found |= {f"live.{name}": value for name, value in self.live.metrics.items()}
            found |= {f"live.{self.live.name}_low": self.live.low, f"live.{self.live.name}_high": self.live.high}
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """The columns of the inputs and of the answers, beside their profiles."""

    columns: tuple[ColumnDrift, ...]
    answers: tuple[ColumnDrift, ...]
    values: Mapping[str, Column]
    """what was logged, by column"""


def held_against(
    profile: Profile, logged: Logged, limits: Limits, hashed: AbstractSet[str] = frozenset(), key: bytes | None = None
) -> Comparison:
    """
    Compare every column with its profile.

    Args:
        profile: Of the training data.
        logged: Rows that were asked.
        limits: When a difference is one.
        hashed: Columns of which the log has hashes.
        key: Of the hashes; without it these columns are not compared.
    """
    inputs = _comparable(logged.inputs, hashed, profile, key)
    columns = {each.name: each for each in columns_of(inputs, profile.feature_names, profile.kinds)}
    profiles = [_hashed(each, key) if each.name in hashed and key else each for each in profile.columns]
    answers: Mapping[str, Column] = {}
    if profile.output in logged.outputs:
        found = answer_columns(logged.outputs[profile.output], profile.class_names)
        answers = {each.name: each for each in found}
    compared = compare(columns, profiles, limits, "not in the log")
    compared = [
        replace(each, note="logged as a hash") if each.name in hashed - inputs.keys() else each for each in compared
    ]
    both = decided([*compared, *compare(answers, profile.answers, limits, "not in the log")], limits)
    return Comparison(tuple(both[: len(profiles)]), tuple(both[len(profiles) :]), {**columns, **answers})


def _comparable(inputs: Inputs, hashed: AbstractSet[str], profile: Profile, key: bytes | None) -> Inputs:
    """Without the inputs whose hashes say nothing: of numbers and texts, and all where there is no key."""
    return {
        name: array
        for name, array in inputs.items()
        if name not in hashed or (key is not None and profile.kinds.get(name) is Kind.CATEGORY)
    }


def _hashed(profile: ColumnProfile, key: bytes | None) -> ColumnProfile:
    assert key is not None
    return replace(profile, categories={hash_of(name, key).decode(): n for name, n in profile.categories.items()})


def table_rows(found: Sequence[ColumnDrift]) -> Iterator[dict[str, str]]:
    """The lines of a table, what has drifted first and then by the size of the change."""
    for each in sorted(found, key=lambda each: (not each.drifted, -(each.psi or 0.0))):
        missing = f"{each.missing_before:.1%} → {each.missing_now:.1%}"
        yield {
            "column": each.name,
            "verdict": "drifted" if each.drifted else "stable" if each.test or each.missing_p_value else "",
            "psi": "" if each.psi is None else f"{each.psi:.3f}",
            "test": f"{each.test} {each.statistic:.3f}" if each.statistic is not None else "",
            "p": "" if each.p_value is None else f"{each.p_value:.2g}",
            "missing": "" if each.missing_before == each.missing_now == 0 else missing,
            "unseen": f"{each.unseen:.1%}" if each.unseen else "",
            "note": each.note,
        }


def markdown(report: DriftReport) -> str:
    """A page about it."""
    rows = list(table_rows(report.all_columns))
    lines = [f"# Drift of {report.model}: {report.verdict}", "", f"{report.reason}.", ""]
    if rows:
        lines += ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
        lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row.values()) + " |" for row in rows]
    if report.live is not None:
        lines += ["", f"{report.live.sentence}."]
    return "\n".join(lines) + "\n"
