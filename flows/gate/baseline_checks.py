"""A candidate held against two simple models that were trained on the same rows: a dummy, and a linear one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from flows.gate.checks import Check
from flows.gate.noninferiority import MIN_MARGIN, Verdict, compare_scores
from flows.recipes import Thresholds
from flows.tasks import Classification, Evaluation
from flows.training.baselines import DUMMY, LINEAR


def baseline_checks(
    evaluation: Evaluation, baselines: Mapping[str, Evaluation], thresholds: Thresholds
) -> Iterator[Check]:
    """The floors of a recipe that sets none of its own; for information where it sets some."""
    if not baselines or evaluation.task.fault(evaluation.answers):
        return
    decisive = not thresholds.has_limits
    for check in _checks(evaluation, baselines, thresholds):
        yield check if decisive else Check(check.check, check.measured, "shown only", Verdict.PASSED, check.why)


def _checks(evaluation: Evaluation, baselines: Mapping[str, Evaluation], thresholds: Thresholds) -> Iterator[Check]:
    if DUMMY in baselines:
        yield _better_than_dummy(evaluation, baselines[DUMMY], 1 - thresholds.confidence)
    if LINEAR in baselines:
        yield _not_worse_than_linear(evaluation, baselines[LINEAR], thresholds.confidence)


def _better_than_dummy(evaluation: Evaluation, dummy: Evaluation, level: float) -> Check:
    """
    Whether the answers have to do with the targets at all, which those of a dummy have not.

    A test of ranks, as a rare class would drown in a share of all rows.
    """
    score, constant = float(comparable(evaluation).mean()), float(comparable(dummy).mean())
    measured, required = f"{_score_name(evaluation)} {score:.4f}, the dummy {constant:.4f}", "clearly better"
    p_value = evaluation.task.unrelated(evaluation.targets, evaluation.answers)
    if score <= constant and not (evaluation.targets == evaluation.targets[0]).all():
        why = "no better than a model that answers every row alike: see that the columns have to do with the target"
        return Check("dummy baseline", measured, required, Verdict.REJECTED, why)
    if not p_value < level:
        why = (
            f"{len(evaluation)} held-out rows do not show that it is better than a model that answers every row alike "
            f"(p = {p_value:.2g}): train with more rows, or set a floor of your own, as by --min-accuracy"
        )
        return Check("dummy baseline", measured, required, Verdict.INCONCLUSIVE, why)
    why = f"better than a model that answers every row alike, p = {p_value:.2g}"
    return Check("dummy baseline", measured, required, Verdict.PASSED, why)


def _not_worse_than_linear(evaluation: Evaluation, linear: Evaluation, confidence: float) -> Check:
    found = compare_scores(comparable(evaluation), comparable(linear), MIN_MARGIN, confidence)
    measured = f"{found.difference:+.4f} ({found.lower:+.4f} to {found.upper:+.4f}) {_score_name(evaluation)}"
    required = f"not clearly below {-MIN_MARGIN:+.4f}"
    if found.verdict is Verdict.REJECTED:
        why = f"clearly worse than a linear model of the same rows, by more than {MIN_MARGIN:g}: that would do better"
        return Check("linear baseline", measured, required, Verdict.REJECTED, why)
    side = "better" if found.lower > 0 else "not clearly worse"
    return Check("linear baseline", measured, required, Verdict.PASSED, f"{side} than a linear model of the same rows")


def comparable(evaluation: Evaluation) -> NDArray[np.float64]:
    """The scores by which models of different kinds are compared: for classes ranks, which need no cut."""
    task = evaluation.task
    if isinstance(task, Classification):
        return task.ranks(evaluation.targets, evaluation.answers)
    return evaluation.scores


def _score_name(evaluation: Evaluation) -> str:
    return "roc_auc" if isinstance(evaluation.task, Classification) else evaluation.task.score_name
