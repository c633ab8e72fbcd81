"""The gate of a candidate without held-out rows: its files, its promises to clients, and that it answers."""

from __future__ import annotations

from collections.abc import Iterator

from flows.gate.checks import Check, breaking_check
from flows.gate.contract import contract
from flows.gate.gates import GateDecision, judge_files
from flows.gate.noninferiority import Verdict
from flows.recipes import Thresholds
from flows.training.champion import Champion
from flows.training.inspection import Inspection


def judge_unevaluated(
    inspection: Inspection, champion: Champion | None, reason: str, thresholds: Thresholds, allow_breaking: bool
) -> GateDecision:
    """
    Hold a candidate against what can be said without its answers being right or wrong.

    Args:
        inspection: What its files say.
        champion: The live version; None for the first version of a model.
        reason: Why it is not evaluated.
        thresholds: What is required of all models.
        allow_breaking: Whether clients of the champion may find something changed.
    """
    checks = [Check("evaluation", "none", "none, as was asked for", Verdict.PASSED, f"not evaluated: {reason}")]
    if champion is not None:
        checks += [contract(inspection, champion, allow_breaking), *_golden_rows(champion, allow_breaking)]
    return GateDecision((*checks, *judge_files(inspection, thresholds).checks), thresholds)


def cannot_answer(why: str, thresholds: Thresholds) -> GateDecision:
    """The decision on a candidate that loads and can answer no row."""
    return GateDecision((Check("answers", "none", "an answer", Verdict.REJECTED, why),), thresholds)


def _golden_rows(champion: Champion, allow_breaking: bool) -> Iterator[Check]:
    """Whether clients of the live version get answers of the same form."""
    golden, required = champion.golden, "answered in the same form"
    if golden is None:
        return
    if golden.candidate is None:
        why = f"does not answer the golden rows of version {champion.version}"
        yield breaking_check("golden rows", "no answer", required, why, allow_breaking)
    elif golden.candidate.shape != golden.champion.shape:
        shapes = f"{list(golden.candidate.shape)} instead of {list(golden.champion.shape)}"
        yield breaking_check("golden rows", shapes, required, f"answers by shape {shapes}", allow_breaking)
    else:
        yield Check("golden rows", "the same form", required, Verdict.PASSED, "other values were not looked at")
