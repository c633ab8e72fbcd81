"""The gate: it judges whether a candidate is good enough to be published, by what is required and by the champion."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from flows.gate.checks import Check, markdown_report
from flows.gate.noninferiority import MIN_MARGIN, POWER, Comparison, Verdict, compare_scores
from flows.recipes import Thresholds
from flows.training.champion import Champion, GoldenAnswers
from flows.training.evaluation import Evaluation, Slice
from flows.training.inspection import Inspection, Signature

_SUM_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class GateDecision:
    """The verdict, and what led to it."""

    checks: tuple[Check, ...]
    thresholds: Thresholds
    comparison: Comparison | None = None
    """with the champion; None where there is none, or it could not be evaluated"""
    slices: tuple[Slice, ...] = ()

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


def judge(
    evaluation: Evaluation,
    inspection: Inspection,
    slices: Sequence[Slice],
    champion: Champion | None,
    thresholds: Thresholds,
    allow_breaking: bool = False,
) -> GateDecision:
    """
    Hold a candidate against what is required of it, and against the champion.

    Args:
        evaluation: The candidate's answers to the held-out rows.
        inspection: What its files say.
        slices: Its accuracy on parts of the held-out rows.
        champion: The live version's answers to the same rows; None for the first version of a model.
        thresholds: What the recipe requires.
        allow_breaking: Whether clients of the champion may find something changed.
    """
    checks = [
        *_floors(evaluation, thresholds),
        _probabilities(evaluation),
        *_slice_checks(evaluation.accuracy, slices, thresholds),
    ]
    comparison = None
    if champion is None:
        why = "first version: nothing is live to compare with, so what is required absolutely decides"
        checks.append(Check("champion", "none", "none for a first version", Verdict.PASSED, why))
    else:
        checks.append(_champion(champion, allow_breaking))
        if champion.evaluation is not None:
            comparison = _compare(evaluation, champion.evaluation, thresholds)
            checks.append(_noninferiority(comparison, champion.version, thresholds))
        checks.append(_contract(inspection, champion, allow_breaking))
        if champion.golden is not None:
            checks.append(_golden_rows(champion.golden, allow_breaking))
    checks += judge_files(inspection, thresholds).checks
    return GateDecision(tuple(checks), thresholds, comparison, tuple(slices))


def judge_files(inspection: Inspection, thresholds: Thresholds) -> GateDecision:
    """Hold a candidate against what is required of it before it is run at all."""
    return GateDecision((_safety(inspection, thresholds), _size(inspection, thresholds)), thresholds)


def _floors(evaluation: Evaluation, thresholds: Thresholds) -> Iterator[Check]:
    for name, value, least in (
        ("accuracy", evaluation.accuracy, thresholds.min_accuracy),
        ("macro F1", evaluation.macro_f1, thresholds.min_macro_f1),
    ):
        why = "at least what is required" if value >= least else f"{name} {value:.4f} is below {least:.4f}"
        yield _check(name, f"{value:.4f}", f">= {least:.4f}", value >= least, why)
    loss, most = evaluation.log_loss, thresholds.max_log_loss
    why = (
        "the probabilities are as certain as they are right"
        if loss <= most
        else f"log loss {loss:.4f} is above {most:.4f}"
    )
    yield _check("log loss", f"{loss:.4f}", f"<= {most:.4f}", loss <= most, why)


def _probabilities(evaluation: Evaluation) -> Check:
    # argmax answers for NaN too, so a broken model could pass on accuracy alone.
    total = float(abs(evaluation.probabilities.sum(axis=1) - 1).max())
    passed = math.isfinite(total) and total <= _SUM_TOLERANCE
    why = "every row of probabilities sums to 1" if passed else "a row of probabilities does not sum to 1"
    return _check("probabilities", f"off by {total:.1e}", f"<= {_SUM_TOLERANCE:.1e}", passed, why)


def _slice_checks(accuracy: float, slices: Sequence[Slice], thresholds: Thresholds) -> Iterator[Check]:
    """One check for the classes, and one for each column."""
    least, rows = accuracy - thresholds.max_slice_drop, thresholds.min_slice_rows
    for by in dict.fromkeys(each.by for each in slices):
        of_this = [each for each in slices if each.by == by]
        judged = [each for each in of_this if each.rows >= rows]
        required = f">= {least:.4f}, from {rows} rows on"
        if not judged:
            yield Check(f"slices by {by}", "none", required, Verdict.PASSED, f"no slice has {rows} rows")
            continue
        low = [each for each in judged if each.accuracy < least]
        worst = min(judged, key=lambda each: each.accuracy)
        listed = ", ".join(f"{each.name} ({each.accuracy:.4f} of {each.rows} rows)" for each in low)
        small = len(of_this) - len(judged)
        fine = f"{len(judged)} slices are near the whole" + (f", {small} are too small to judge" if small else "")
        why = f"far below the accuracy of all rows, {accuracy:.4f}: {by} {listed}" if low else fine
        yield _check(f"slices by {by}", f"{worst.name} {worst.accuracy:.4f}", required, not low, why)


def _champion(champion: Champion, allow_breaking: bool) -> Check:
    name, required = f"version {champion.version}", "evaluated on the same rows"
    notes = "; ".join(champion.notes)
    if champion.evaluation is not None:
        measured = f"{name}, accuracy {champion.evaluation.accuracy:.4f}"
        return Check("champion", measured, required, Verdict.PASSED, notes or "its served files answer all rows")
    if allow_breaking:
        why = f"{notes}; allowed by --allow-breaking, so what is required absolutely decides"
        return Check("champion", name, required, Verdict.PASSED, why)
    why = (
        f"nothing to compare with, as {name} is live and {notes}: point label stable to a version that can be, "
        "or add --allow-breaking"
    )
    return Check("champion", name, required, Verdict.INCONCLUSIVE, why)


def _compare(evaluation: Evaluation, champion: Evaluation, thresholds: Thresholds) -> Comparison:
    identical = bool(np.array_equal(evaluation.predicted, champion.predicted))
    scores = evaluation.right.astype(np.float64), champion.right.astype(np.float64)
    return compare_scores(*scores, thresholds.margin, thresholds.confidence, identical)


def _noninferiority(comparison: Comparison, version: int, thresholds: Thresholds) -> Check:
    confidence = f"{thresholds.confidence:.0%}"
    counts = (
        f"{comparison.won} rows won, {comparison.lost} lost of {comparison.rows}, "
        f"sign test p = {comparison.p_value:.2g}{_margin_reason(comparison, thresholds)}"
    )
    if comparison.verdict is Verdict.REJECTED:
        why = f"worse than version {version} by more than {comparison.margin:g}, with {confidence} confidence: {counts}"
    elif comparison.verdict is Verdict.PASSED and comparison.lower <= -comparison.margin:
        why = f"the same answer as version {version} gives, for each of {comparison.rows} rows"
    elif comparison.verdict is Verdict.PASSED:
        why = f"not worse than version {version}, with {confidence} confidence: {counts}"
    else:
        more = "more rows would hardly" if comparison.more_rows is None else f"about {comparison.more_rows} more would"
        why = (
            f"{comparison.rows} held-out rows do not show whether it is worse than version {version}, "
            f"{more} decide: {counts}"
        )
    measured = f"{comparison.difference:+.4f} ({comparison.lower:+.4f} to {comparison.upper:+.4f})"
    required = f"from > {-comparison.margin:+.4f}"
    return Check("non-inferiority", measured, required, comparison.verdict, why)


def _margin_reason(comparison: Comparison, thresholds: Thresholds) -> str:
    """Why the margin is what it is, where the recipe leaves that open."""
    if thresholds.margin is not None:
        return ""
    if comparison.margin <= MIN_MARGIN:
        return f"; margin {comparison.margin:g}, the smallest that is asked for"
    return f"; margin {comparison.margin:g}, the smallest that {comparison.rows} rows decide with a power of {POWER:g}"


def _contract(inspection: Inspection, champion: Champion, allow_breaking: bool) -> Check:
    required = "what clients use is unchanged"
    if champion.inspection is None:
        verdict = Verdict.PASSED if allow_breaking else Verdict.INCONCLUSIVE
        why = f"the signatures of version {champion.version} cannot be read"
        return Check("contract", "unknown", required, verdict, why)
    breaking, added = _differences(champion.inspection, inspection)
    if breaking:
        why = f"breaks clients of version {champion.version}: {'; '.join(breaking)}"
        return _breaking("contract", f"{len(breaking)} breaking", required, why, allow_breaking)
    why = f"clients notice nothing, added: {', '.join(added)}" if added else "the same signatures"
    return Check("contract", f"{len(added)} added" if added else "the same", required, Verdict.PASSED, why)


def _differences(before: Inspection, after: Inspection) -> tuple[list[str], list[str]]:
    """What breaks clients, and what is new to them."""
    breaking, added = [], []
    for name, old in before.signatures.items():
        new = after.signatures.get(name)
        if new is None:
            breaking.append(f"signature {name!r} is gone")
            continue
        if new.method != old.method:
            breaking.append(f"signature {name!r} is for {new.method} instead of {old.method}")
        changes, additions = _tensor_differences(name, old, new)
        breaking += changes
        added += additions
    added += [f"signature {name!r}" for name in after.signatures if name not in before.signatures]
    if before.class_names and after.class_names[: len(before.class_names)] != before.class_names:
        breaking.append(f"classes are {list(after.class_names)} instead of {list(before.class_names)}")
    return breaking, added


def _tensor_differences(signature: str, before: Signature, after: Signature) -> tuple[list[str], list[str]]:
    breaking, added = [], []
    both: tuple[tuple[str, Mapping[str, str], Mapping[str, str]], ...] = (
        ("input", before.inputs, after.inputs),
        ("output", before.outputs, after.outputs),
    )
    for kind, old, new in both:
        for name in old.keys() | new.keys():
            tensor = f"{kind} {name!r} of {signature!r}"
            if name not in new:
                breaking.append(f"{tensor} is gone")
            elif name in old and old[name] != new[name]:
                breaking.append(f"{tensor} is {new[name]} instead of {old[name]}")
            elif name not in old and kind == "input":
                breaking.append(f"{tensor} is asked for in addition")
            elif name not in old:
                added.append(tensor)
    return sorted(breaking), sorted(added)


def _golden_rows(golden: GoldenAnswers, allow_breaking: bool) -> Check:
    """
    A retrained model may see a doubtful row differently; one that sees most of them differently means something else
    by its outputs, such as classes in another order.
    """
    rows, required = len(golden.champion), "same class for at least half"
    if golden.candidate is None:
        return _breaking(
            "golden rows", "no answer", required, "does not answer the champion's golden rows", allow_breaking
        )
    if golden.candidate.shape != golden.champion.shape:
        shapes = f"{list(golden.candidate.shape)} instead of {list(golden.champion.shape)}"
        why = f"answers the champion's golden rows by shape {shapes}"
        return _breaking("golden rows", shapes, required, why, allow_breaking)
    before, after = golden.champion.argmax(axis=1), golden.candidate.argmax(axis=1)
    changed = ", ".join(f"row {i}: class {before[i]} -> {after[i]}" for i in np.flatnonzero(before != after))
    same = int(np.count_nonzero(before == after))
    measured = f"{same} of {rows} the same"
    if 2 * same < rows:
        why = f"answers the champion's golden rows differently: {changed}"
        return _breaking("golden rows", measured, required, why, allow_breaking)
    return Check("golden rows", measured, required, Verdict.PASSED, changed or "all as the champion answered them")


def _breaking(name: str, measured: str, required: str, why: str, allowed: bool) -> Check:
    if allowed:
        return Check(name, measured, required, Verdict.PASSED, f"{why}; allowed by --allow-breaking")
    return Check(name, measured, required, Verdict.REJECTED, f"{why}; if that is meant, add --allow-breaking")


def _safety(inspection: Inspection, thresholds: Thresholds) -> Check:
    allowed = set(thresholds.allowed_ops)
    refused = sorted(inspection.unsafe_ops - allowed)
    found = ", ".join(sorted(inspection.unsafe_ops)) or "none"
    required = f"none but {', '.join(sorted(allowed))}" if allowed else "none"
    why = "only computes" if not inspection.unsafe_ops else "all are allowed by the recipe"
    if refused:
        why = (
            f"runs {', '.join(refused)}, which touch files, other hosts or Python: "
            "leave them out, or name them in the recipe's allowed_ops"
        )
    return _check("unsafe ops", found, required, not refused, why)


def _size(inspection: Inspection, thresholds: Thresholds) -> Check:
    passed = inspection.size <= thresholds.max_bytes
    why = (
        "within the budget"
        if passed
        else f"{inspection.size:,} bytes are more than the budget of {thresholds.max_bytes:,}"
    )
    return _check("size", f"{inspection.size:,} bytes", f"<= {thresholds.max_bytes:,} bytes", passed, why)


def _check(name: str, measured: str, required: str, passed: bool, why: str) -> Check:
    return Check(name, measured, required, Verdict.PASSED if passed else Verdict.REJECTED, why)
