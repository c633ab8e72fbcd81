"""What is required of a candidate's answers, whatever is live: the floors of its metrics, and of each slice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from flows.gate.checks import Check, required_check
from flows.gate.noninferiority import Verdict
from flows.recipes import Thresholds
from flows.tasks import Evaluation
from flows.training.slices import Slice

_TITLES = {"macro_f1": "macro F1", "log_loss": "log loss"}


def metric_floors(evaluation: Evaluation, thresholds: Thresholds) -> Iterator[Check]:
    """One check for each metric that the recipe sets a limit to."""
    for name, least in thresholds.floors.items():
        yield _limit(evaluation, name, least, ">=")
    for name, most in thresholds.ceilings.items():
        yield _limit(evaluation, name, most, "<=")


def _limit(evaluation: Evaluation, name: str, limit: float, sign: str) -> Check:
    title, required = _TITLES.get(name, name), f"{sign} {limit:.4f}"
    measured = {**evaluation.metrics, **evaluation.parts}
    if name not in measured:
        why = f"{title} is not defined for these rows and answers, which have {', '.join(measured)}"
        return Check(title, "not defined", required, Verdict.INCONCLUSIVE, why)
    value = measured[name]
    passed = value >= limit if sign == ">=" else value <= limit
    fine, side = ("at least what is required", "below") if sign == ">=" else ("at most what is allowed", "above")
    why = fine if passed else f"{title} {value:.4f} is {side} {limit:.4f}"
    return required_check(title, f"{value:.4f}", required, passed, why)


def answers_check(evaluation: Evaluation) -> Check:
    """Whether the answers are of the kind that the task asks for; the likeliest of NaN is a class too."""
    name = "probabilities" if "accuracy" in evaluation.metrics else "answers"
    fault = evaluation.task.fault(evaluation.answers)
    measured = f"{len(evaluation)} rows"
    return required_check(name, measured, "fit for the task", not fault, fault or "every row is answered as it must be")


def slice_checks(evaluation: Evaluation, slices: Sequence[Slice], thresholds: Thresholds) -> Iterator[Check]:
    """One check for the classes, and one for each column."""
    for by in dict.fromkeys(each.by for each in slices):
        yield _slice_check(by, [each for each in slices if each.by == by], evaluation, thresholds)


def _slice_check(by: str, slices: Sequence[Slice], evaluation: Evaluation, thresholds: Thresholds) -> Check:
    whole, rows, drop, name = evaluation.score, thresholds.min_slice_rows, thresholds.slice_drop, f"slices by {by}"
    judged = [each for each in slices if each.rows >= rows]
    least = whole - (drop or 0) * evaluation.task.margin_unit(evaluation.scores)
    required = "shown only" if drop is None else f">= {least:.4f}, from {rows} rows on"
    if not judged:
        return Check(name, "none", required, Verdict.PASSED, f"no slice has {rows} rows")
    worst = min(judged, key=lambda each: each.score)
    measured = f"{worst.name} {worst.score:.4f}"
    if drop is None:
        why = f"the lowest of {len(judged)} slices; all rows have {evaluation.task.score_name} {whole:.4f}"
        return Check(name, measured, required, Verdict.PASSED, why)
    low = [each for each in judged if each.score < least]
    listed = ", ".join(f"{each.name} ({each.score:.4f} of {each.rows} rows)" for each in low)
    small = len(slices) - len(judged)
    fine = f"{len(judged)} slices are near the whole" + (f", {small} are too small to judge" if small else "")
    why = f"far below the {evaluation.task.score_name} of all rows, {whole:.4f}: {by} {listed}" if low else fine
    return required_check(name, measured, required, not low, why)
