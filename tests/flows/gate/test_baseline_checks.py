"""A candidate against the dummy and the linear model of the same rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from flows.gate.baseline_checks import baseline_checks
from flows.gate.checks import Check
from flows.gate.noninferiority import Verdict
from flows.recipes import Thresholds
from flows.tasks import Classification, Evaluation, MultiLabel, Regression, Task

RANDOM = np.random.default_rng(0)
ROWS = 600
TWO, THREE = Classification(("no", "yes")), Classification(("a", "b", "c"))
LABELS = MultiLabel(("wet", "cold"))
RARE = (RANDOM.random(ROWS) < 0.04).astype(np.int64)
CLASSES = RANDOM.integers(0, 3, ROWS)
HAS_LABELS = RANDOM.random((ROWS, 2)) > 0.5
VALUES = RANDOM.lognormal(size=(ROWS, 1))
TARGETS: Mapping[Task, NDArray[Any]] = {TWO: RARE, THREE: CLASSES, LABELS: HAS_LABELS, Regression(): VALUES}


def answers(task: Task, targets: NDArray[Any], signal: float, seed: int) -> NDArray[np.float64]:
    """Answers in which so much of the truth is, and noise; none at all is a dummy."""
    noise = np.random.default_rng(seed).normal(size=(len(targets), task.output_width or 1))
    if isinstance(task, Regression):
        return np.asarray(targets.mean() + signal * (targets - targets.mean()) + (signal > 0) * 0.1 * noise)
    truth = targets if isinstance(task, MultiLabel) else targets[:, None] == np.arange(task.output_width or 1)
    logits = signal * (truth - 0.5) + 0.5 * noise
    if isinstance(task, MultiLabel):
        return np.asarray(1 / (1 + np.exp(-logits)))
    odds = np.exp(logits) * [[0.96, 0.04]] if task is TWO else np.exp(logits)
    return np.asarray(odds / odds.sum(axis=1, keepdims=True))


def dummy(task: Task, targets: NDArray[Any]) -> Evaluation:
    truth = targets if not isinstance(task, Classification) else np.eye(task.output_width)[targets]
    return task.evaluate(targets, np.tile(truth.mean(axis=0), (len(targets), 1)))


def checks(
    task: Task, targets: NDArray[Any], signal: float, linear: float | None = None, thresholds: Thresholds | None = None
) -> dict[str, Check]:
    baselines = {"dummy": dummy(task, targets)}
    if linear is not None:
        baselines["linear"] = task.evaluate(targets, answers(task, targets, linear, 4))
    evaluation = task.evaluate(targets, answers(task, targets, signal, 3))
    return {each.check: each for each in baseline_checks(evaluation, baselines, thresholds or Thresholds())}


@pytest.mark.parametrize("task", TARGETS, ids=lambda task: f"{task.name} {task.output_width}")
def test_what_has_to_do_with_the_target_is_better_than_a_dummy(task: Task) -> None:
    """Also for a class of 4 rows in 100, where the dummy's accuracy is hard to beat; noise is never clearly better."""
    targets = TARGETS[task]
    assert checks(task, targets, 1.0)["dummy baseline"].verdict is Verdict.PASSED
    assert checks(task, targets, 0.0)["dummy baseline"].verdict is not Verdict.PASSED


@pytest.mark.parametrize("task", TARGETS, ids=lambda task: f"{task.name} {task.output_width}")
def test_what_is_clearly_worse_than_a_linear_model_is_rejected(task: Task) -> None:
    """As good or better passes, whatever the rows show; far worse does not."""
    targets = TARGETS[task]
    for signal, linear, verdict in (
        (1.0, 1.0, Verdict.PASSED),
        (1.0, 0.3, Verdict.PASSED),
        (0.0, 1.0, Verdict.REJECTED),
    ):
        if task is TWO and verdict is Verdict.REJECTED:
            targets = CLASSES % 2  # 24 rows of the rare class show nothing
        assert checks(task, targets, signal, linear)["linear baseline"].verdict is verdict


def test_few_rows_leave_open_whether_it_is_better_than_a_dummy() -> None:
    """Six rows show nothing, so it is inconclusive, with the next step."""
    few = np.array([0, 1] * 3)
    found = checks(TWO, few, 0.3)["dummy baseline"]
    assert found.verdict is not Verdict.PASSED
    assert "train with more rows" in found.why or "answers every row alike" in found.why


def test_rows_of_one_class_leave_it_open() -> None:
    """Where all held-out targets are alike, no answer can be told from a dummy's."""
    alike = np.zeros(50, np.int64)
    found = checks(TWO, alike, 1.0, 1.0)
    assert found["dummy baseline"].verdict is Verdict.INCONCLUSIVE
    assert found["linear baseline"].verdict is Verdict.PASSED


def test_noise_is_clearly_better_than_a_dummy_at_most_as_often_as_allowed() -> None:
    """In 100 trials of three classes, at most 5 of 100 pass."""
    passed = 0
    for seed in range(100):
        found = THREE.evaluate(CLASSES[:100], answers(THREE, CLASSES[:100], 0.0, seed + 10))
        check = next(iter(baseline_checks(found, {"dummy": dummy(THREE, CLASSES[:100])}, Thresholds())))
        passed += check.verdict is Verdict.PASSED
    assert passed / 100 <= 0.05


def test_where_the_recipe_sets_limits_baselines_are_shown_only() -> None:
    """They are in the report, and reject nothing."""
    for thresholds in (Thresholds(min_accuracy=0.1), Thresholds(at_most={"log_loss": 9})):
        found = checks(THREE, CLASSES, 0.0, 1.0, thresholds)
        assert [each.verdict for each in found.values()] == [Verdict.PASSED, Verdict.PASSED]
        assert "clearly worse than a linear model" in found["linear baseline"].why
