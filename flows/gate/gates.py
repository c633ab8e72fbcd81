"""The gate: it judges whether a candidate is good enough to be published, by what is required and by the champion."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field

from flows.gate.baseline_checks import baseline_checks
from flows.gate.champion_checks import champion_check, compare, golden_rows, noninferiority
from flows.gate.checks import Check, markdown_report
from flows.gate.contract import contract
from flows.gate.file_checks import safety, size
from flows.gate.floors import answers_check, metric_floors, slice_checks
from flows.gate.noninferiority import Comparison, Verdict
from flows.recipes import Thresholds
from flows.tasks import Evaluation
from flows.training.champion import Champion
from flows.training.inspection import Inspection
from flows.training.slices import Slice


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a candidate when it is judged."""

    evaluation: Evaluation
    """its answers to the held-out rows"""
    inspection: Inspection
    """what its files say"""
    slices: tuple[Slice, ...] = ()
    """its score on parts of the held-out rows"""
    champion: Champion | None = None
    """the live version's answers to the same rows; None for the first version of a model"""
    baselines: Mapping[str, Evaluation] = field(default_factory=dict)
    """those of simple models that were trained on the same rows, by name"""
    data_notes: tuple[str, ...] = ()
    """how the data differs from what the champion was trained on"""


@dataclass(frozen=True, slots=True)
class GateDecision:
    """The verdict, and what led to it."""

    checks: tuple[Check, ...]
    thresholds: Thresholds
    comparison: Comparison | None = None
    """with the champion; None where there is none, or it could not be evaluated"""
    slices: tuple[Slice, ...] = ()
    score_name: str = ""
    """what is compared"""

    @property
    def verdict(self) -> Verdict:
        found = {check.verdict for check in self.checks}
        if Verdict.REJECTED in found:
            return Verdict.REJECTED
        if Verdict.INCONCLUSIVE in found and not self.thresholds.inconclusive_passes:
            return Verdict.INCONCLUSIVE
        return Verdict.PASSED

    @property
    def reason(self) -> str:
        """Why it did not pass; empty when it did."""
        if self.verdict is Verdict.PASSED:
            return ""
        return "; ".join(check.why for check in self.checks if check.verdict is not Verdict.PASSED)

    @property
    def table(self) -> list[dict[str, str]]:
        return [check.row for check in self.checks]

    @property
    def markdown(self) -> str:
        return markdown_report(f"Gate: {self.verdict}", self.checks)

    @property
    def json(self) -> str:
        report = {
            "verdict": self.verdict,
            "checks": self.table,
            "comparison": self.comparison and asdict(self.comparison),
            "slices": [asdict(each) for each in self.slices],
            "thresholds": asdict(self.thresholds),
        }
        return json.dumps(report, indent=2)


def judge(facts: Facts, thresholds: Thresholds, allow_breaking: bool = False) -> GateDecision:
    """
    Hold a candidate against what is required of it, and against the champion.

    Args:
        facts: What is known of it.
        thresholds: What the recipe requires.
        allow_breaking: Whether clients of the champion may find something changed.
    """
    champion, comparison = facts.champion, None
    if champion is not None:
        comparison = compare(facts.evaluation, champion, thresholds)
    checks = (
        *metric_floors(facts.evaluation, thresholds),
        answers_check(facts.evaluation),
        *baseline_checks(facts.evaluation, facts.baselines, thresholds),
        *slice_checks(facts.evaluation, facts.slices, thresholds),
        *_data(facts),
        *_against_champion(facts, comparison, thresholds, allow_breaking),
        *judge_files(facts.inspection, thresholds).checks,
    )
    return GateDecision(checks, thresholds, comparison, facts.slices, facts.evaluation.task.score_name)


def judge_files(inspection: Inspection, thresholds: Thresholds) -> GateDecision:
    """Hold a candidate against what is required of it before it is run at all."""
    return GateDecision((safety(inspection, thresholds), size(inspection, thresholds)), thresholds)


def _against_champion(
    facts: Facts, comparison: Comparison | None, thresholds: Thresholds, allow_breaking: bool
) -> Iterator[Check]:
    champion = facts.champion
    if champion is None:
        why = "first version: nothing is live to compare with, so what is required absolutely decides"
        yield Check("champion", "none", "none for a first version", Verdict.PASSED, why)
        return
    yield champion_check(champion, allow_breaking)
    if comparison is not None:
        yield noninferiority(comparison, champion.version, thresholds)
    yield contract(facts.inspection, champion, allow_breaking)
    if champion.golden is not None:
        yield golden_rows(champion.golden, facts.evaluation, allow_breaking)


def _data(facts: Facts) -> Iterator[Check]:
    """What is new about the data, for whoever reads the report."""
    if facts.data_notes:
        found = f"{len(facts.data_notes)} changes"
        yield Check("data", found, "shown only", Verdict.PASSED, "; ".join(facts.data_notes))
