"""A candidate held against the version that is live, on rows that neither has been trained on."""

from __future__ import annotations

import numpy as np

from flows.gate.checks import Check, breaking_check
from flows.gate.noninferiority import MIN_MARGIN, POWER, Comparison, Verdict, compare_scores
from flows.recipes import Thresholds
from flows.tasks import Evaluation, Task
from flows.training.champion import Champion, GoldenAnswers

_REQUIRED = "evaluated on the same rows"


def champion_check(champion: Champion, allow_breaking: bool) -> Check:
    """Whether what is live can be compared with at all."""
    name, notes = f"version {champion.version}", "; ".join(champion.notes)
    if champion.comparable is not None:
        measured = f"{name}, {champion.comparable.task.score_name} {champion.comparable.score:.4f}"
        return Check("champion", measured, _REQUIRED, Verdict.PASSED, notes or "its served files answer all rows")
    if allow_breaking:
        why = f"{notes}; allowed by --allow-breaking, so what is required absolutely decides"
        return Check("champion", name, _REQUIRED, Verdict.PASSED, why)
    if champion.evaluation is not None:
        step = f"train on data with rows that version {champion.version} has not seen"
    else:
        step = "point label stable to a version that can be"
    why = f"nothing to compare with, as {name} is live and {notes}: {step}, or add --allow-breaking"
    return Check("champion", name, _REQUIRED, Verdict.INCONCLUSIVE, why)


def compare(evaluation: Evaluation, champion: Champion, thresholds: Thresholds) -> Comparison | None:
    """
    The comparison on the rows that the champion has not been trained on.

    None where it cannot be evaluated, and where the candidate answers with NaN, which another check rejects.
    """
    live = champion.comparable
    if live is None:
        return None
    if not champion.unseen.all():
        evaluation = evaluation.of(champion.unseen)
    if not np.isfinite(evaluation.scores).all():
        return None
    return compare_scores(
        evaluation.scores,
        live.scores,
        thresholds.margin,
        thresholds.confidence,
        identical=same_answers(evaluation, live),
        unit=evaluation.task.margin_unit(live.scores),
    )


def same_answers(one: Evaluation, other: Evaluation) -> bool:
    """Whether two models give every row the same answer; of classes, the same class."""
    if one.task.is_share:
        return bool(one.task.same_answer(one.answers, other.answers, one.targets).all())
    return one.answers.shape == other.answers.shape and bool(np.array_equal(one.answers, other.answers))


def noninferiority(comparison: Comparison, version: int, thresholds: Thresholds) -> Check:
    """Whether the candidate is shown to be at most the margin worse."""
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


def golden_rows(golden: GoldenAnswers, evaluation: Evaluation, allow_breaking: bool) -> Check:
    """
    A retrained model may see a doubtful row differently; one that sees most of them differently means something else
    by its outputs, such as classes in another order.
    """
    rows, required = len(golden.champion), "same answer for at least half"
    if golden.candidate is None:
        return breaking_check(
            "golden rows", "no answer", required, "does not answer the champion's golden rows", allow_breaking
        )
    if golden.candidate.shape != golden.champion.shape:
        shapes = f"{list(golden.candidate.shape)} instead of {list(golden.champion.shape)}"
        why = f"answers the champion's golden rows by shape {shapes}"
        return breaking_check("golden rows", shapes, required, why, allow_breaking)
    same = evaluation.task.same_answer(golden.champion, golden.candidate, evaluation.targets)
    changed = ", ".join(_change(evaluation.task, golden, int(row)) for row in np.flatnonzero(~same))
    measured = f"{np.count_nonzero(same)} of {rows} the same"
    if 2 * np.count_nonzero(same) < rows:
        why = f"answers the champion's golden rows differently: {changed}"
        return breaking_check("golden rows", measured, required, why, allow_breaking)
    return Check("golden rows", measured, required, Verdict.PASSED, changed or "all as the champion answered them")


def _change(task: Task, golden: GoldenAnswers, row: int) -> str:
    assert golden.candidate is not None
    return f"row {row}: {task.described(golden.champion[row])} -> {task.described(golden.candidate[row])}"
