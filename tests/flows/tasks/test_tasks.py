"""Tasks: what they take, how rows are scored, and what is measured."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics

from flows.tasks import CannotEvaluate, Classification, MultiLabel, OwnTask, Regression, Task, UnusableTargets
from flows.tasks.probabilities import calibration_error
from flows.user_code import RecipeFailed

RANDOM = np.random.default_rng(0)
THREE = Classification(("a", "b", "c"))
TWO = Classification(("no", "yes"))
LABELS = MultiLabel(("wet", "cold"))
ABSOLUTE = OwnTask(lambda targets, answers: -np.abs(targets - answers))


def probabilities(rows: int, classes: int) -> NDArray[np.float32]:
    return RANDOM.dirichlet(np.ones(classes), rows).astype(np.float32)


def test_metrics_of_classes_are_those_of_scikit_learn() -> None:
    """Every metric of three classes has the value that the library gives."""
    classes, answers = RANDOM.integers(0, 3, 200), probabilities(200, 3)
    predicted, exact = answers.argmax(axis=1), answers.astype(np.float64)
    exact /= exact.sum(axis=1, keepdims=True)
    one_hot = np.eye(3)[classes]
    expected = {
        "accuracy": metrics.accuracy_score(classes, predicted),
        "balanced_accuracy": metrics.balanced_accuracy_score(classes, predicted),
        "macro_f1": metrics.f1_score(classes, predicted, average="macro"),
        "min_recall": metrics.recall_score(classes, predicted, average=None).min(),
        "recall_b": metrics.recall_score(classes, predicted, average=None)[1],
        "precision_c": metrics.precision_score(classes, predicted, average=None)[2],
        "log_loss": metrics.log_loss(classes, exact),
        "brier": np.square(exact - one_hot).sum(axis=1).mean() / 2,
        "roc_auc": metrics.roc_auc_score(classes, exact, multi_class="ovr"),
        "pr_auc": metrics.average_precision_score(one_hot, exact),
    }
    evaluation = THREE.evaluate(classes, answers)
    found = {**evaluation.metrics, **evaluation.parts}
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    assert 0 <= found["ece"] <= 1


def test_one_sigmoid_is_two_probabilities() -> None:
    """One value a row is the probability of the second class, in either shape, and measures the same."""
    classes, second = RANDOM.integers(0, 2, 100), RANDOM.random(100).astype(np.float32)
    both = TWO.evaluate(classes, np.stack([1 - second, second], axis=1))
    for answers in (second, second[:, None]):
        found = TWO.evaluate(classes, answers)
        np.testing.assert_array_equal(found.scores, both.scores)
        assert found.metrics == pytest.approx(both.metrics)
    assert both.metrics["roc_auc"] == pytest.approx(metrics.roc_auc_score(classes, second))
    assert both.metrics["brier"] == pytest.approx(metrics.brier_score_loss(classes, second))
    assert both.metrics["recall"] == both.parts["recall_yes"]


def test_the_positive_class_decides_what_precision_is_about() -> None:
    """Recall, precision and the precision-recall curve are those of the class that is named."""
    classes, answers = RANDOM.integers(0, 2, 100), probabilities(100, 2)
    found = Classification(("no", "yes"), positive="no").evaluate(classes, answers)
    assert found.metrics["recall"] == found.parts["recall_no"]
    assert found.metrics["pr_auc"] == pytest.approx(metrics.average_precision_score(classes == 0, answers[:, 0]))


@pytest.mark.parametrize("score", ["accuracy", "roc_auc", "log_loss", "brier"])
def test_the_mean_score_of_the_rows_is_the_metric(score: Any) -> None:
    """Whatever rows are compared by, larger is better and the mean is the metric, a loss with its sign turned."""
    for names in (("a", "b", "c"), ("no", "yes")):
        classes, answers = RANDOM.integers(0, len(names), 300), probabilities(300, len(names))
        found = Classification(names, score=score).evaluate(classes, answers)
        expected = found.metrics[score] * (-1 if score in ("log_loss", "brier") else 1)
        assert found.score == pytest.approx(expected, rel=1e-5)
        assert found.scores.shape == (300,)


def test_calibration_error_is_that_of_the_curve() -> None:
    """It is the weighted distance between the points of scikit-learn's calibration curve and the diagonal."""
    from sklearn.calibration import calibration_curve

    confidence = RANDOM.random(1000)
    right = RANDOM.random(1000) < confidence**2
    share, mean = calibration_curve(right, confidence, n_bins=10)
    weights = np.bincount((confidence * 10).astype(int), minlength=10) / 1000
    assert calibration_error(confidence, right) == pytest.approx(float(weights @ np.abs(share - mean)))


def test_metrics_of_several_labels_are_those_of_scikit_learn() -> None:
    """Labels are judged each by itself; all of a row together are its accuracy."""
    targets, answers = RANDOM.random((200, 2)) > 0.6, RANDOM.random((200, 2)).astype(np.float32)
    found = LABELS.evaluate(targets, answers)
    assert found.metrics["accuracy"] == pytest.approx(metrics.accuracy_score(targets, answers > 0.5))
    assert found.score == pytest.approx(1 - metrics.hamming_loss(targets, answers > 0.5))
    assert found.metrics["macro_f1"] == pytest.approx(metrics.f1_score(targets, answers > 0.5, average="macro"))
    assert found.metrics["roc_auc"] == pytest.approx(metrics.roc_auc_score(targets, answers))
    assert found.parts["recall_cold"] == pytest.approx(metrics.recall_score(targets[:, 1], answers[:, 1] > 0.5))


def test_metrics_of_values_are_those_of_scikit_learn() -> None:
    """One value in either shape; several also each by name."""
    targets = RANDOM.normal(size=(100, 1))
    answers = (targets + RANDOM.normal(size=(100, 1))).astype(np.float32)
    one = Regression().evaluate(targets, answers[:, 0]).metrics
    assert one == Regression().evaluate(targets, answers).metrics
    assert one["mae"] == pytest.approx(metrics.mean_absolute_error(targets, answers))
    assert one["rmse"] == pytest.approx(metrics.root_mean_squared_error(targets, answers))
    assert one["r2"] == pytest.approx(metrics.r2_score(targets, answers))
    assert one["median_absolute_error"] == pytest.approx(metrics.median_absolute_error(targets, answers))
    both = Regression(("x", "y")).evaluate(np.hstack([targets, 9 * targets]), np.hstack([answers, answers]))
    assert both.parts["mae_x"] == pytest.approx(one["mae"])
    assert both.metrics["r2"] == pytest.approx((both.parts["r2_x"] + both.parts["r2_y"]) / 2)


def test_the_score_of_a_value_has_no_unit() -> None:
    """The median scores -1 in the mean, what is exact 0, in metres as in millimetres."""
    targets = RANDOM.lognormal(size=(101, 1))
    median = np.full_like(targets, np.median(targets))
    for unit in (1, 1000):
        assert Regression().evaluate(targets * unit, median * unit).score == pytest.approx(-1)
        assert Regression().evaluate(targets * unit, targets * unit).score == 0


def test_a_task_of_ones_own_is_scored_by_its_function() -> None:
    """The mean score is its metric, beside metrics by name, which every task may have."""
    targets = np.arange(10.0)
    largest = {"largest": lambda targets, answers: np.abs(targets - answers).max()}
    own = OwnTask(lambda targets, answers: -np.abs(targets - answers), metrics=largest)
    found = own.evaluate(targets, targets + 2)
    assert found.metrics == {"score": -2, "largest": 2}
    assert Regression(metrics=largest).evaluate(targets[:, None], targets[:, None]).metrics["largest"] == 0


def test_what_the_recipe_gets_wrong_is_said_as_its_mistake() -> None:
    """A score that fails, or is no number a row, is an error of the recipe in one sentence."""
    ten = np.arange(10.0)
    for score, told in (
        (lambda t, a: 1 / 0, r"ZeroDivisionError: division by zero, at .*test_tasks\.py"),
        (lambda t, a: 1.0, "one number a row"),
        (lambda t, a: t * np.nan, "NaN or infinite"),
    ):
        with pytest.raises(RecipeFailed, match=told):
            OwnTask(score).evaluate(ten, ten)
    with pytest.raises(RecipeFailed, match="metric 'bad' cannot be computed"):
        Regression(metrics={"bad": lambda t, a: t[99, 0]}).evaluate(ten[:, None], ten)


@pytest.mark.parametrize(
    ("task", "given", "told"),
    [
        (THREE, np.array([0, 1, 3]), "integers from 0 to 2"),
        (THREE, np.array(["a", "b", "d"] * 2), "integers from 0 to 2, or the class names"),
        (THREE, np.array([0.0, 1.0]), "integers from 0 to 2"),
        (THREE, np.zeros(9, int), "one class only"),
        (THREE, np.array([0, 0, 1, 1, 2]), r"at least two rows of each class, and has too few of \['c'\]"),
        (LABELS, np.zeros((3, 3)), r"shape \[3, 3\]: expected \[rows, 2\]"),
        (LABELS, np.full((3, 2), 0.5), "0 or 1"),
        (Regression(), np.zeros((3, 2)), r"shape \[3, 2\]: expected \[rows, 1\]"),
        (Regression(), np.array(["1", "x"]), "not numbers"),
        (Regression(), np.array([1, np.nan, 2, np.inf]), "NaN or infinite in 2 rows"),
        (Regression(), np.ones(5), "all the same in \\['value'\\]"),
        (ABSOLUTE, np.empty(0), "no rows"),
    ],
)
def test_targets_that_do_not_fit_are_refused(task: Task, given: Any, told: str) -> None:
    """One sentence names the model and what was expected."""
    with pytest.raises(UnusableTargets, match=told) as caught:
        task.targets(given, "churn")
    assert "'churn'" in caught.value.message


def test_targets_are_cast() -> None:
    """Class names, booleans and small integers are numbers of classes; values have a column each."""
    np.testing.assert_array_equal(TWO.targets(["yes", "no"] * 2, "m"), [1, 0, 1, 0])
    np.testing.assert_array_equal(TWO.targets([True, False] * 2, "m"), [1, 0, 1, 0])
    assert TWO.targets(np.array([0, 1, 0, 1], np.uint8), "m").dtype == np.int64
    assert Regression().targets([1, 2], "m").shape == (2, 1)
    assert LABELS.targets([[0, 1], [1, 1]], "m").dtype == bool


@pytest.mark.parametrize(
    ("task", "targets", "shape"),
    [
        (THREE, np.zeros(4, int), (4, 2)),
        (THREE, np.zeros(4, int), (4,)),
        (TWO, np.zeros(4, int), (3, 2)),
        (LABELS, np.zeros((4, 2), bool), (4, 3)),
        (Regression(), np.zeros((4, 1)), (4, 2)),
        (ABSOLUTE, np.zeros(4), (3,)),
    ],
)
def test_answers_of_another_shape_are_refused(task: Task, targets: NDArray[Any], shape: tuple[int, ...]) -> None:
    """The message has the shape that was given."""
    with pytest.raises(CannotEvaluate) as caught:
        task.evaluate(targets, np.zeros(shape, np.float32))
    assert str(list(shape)) in caught.value.message


def test_answers_that_are_no_probabilities_have_a_fault() -> None:
    """Sums other than 1, shares beyond 1 and NaN are told apart, and never stop the evaluation."""
    classes = np.array([0, 1, 0, 1])
    for answers, told in (
        (np.ones((4, 2)), "4 of 4 rows do not sum to 1: end the model with a softmax"),
        (np.full(4, 1.5), "below 0 or above 1"),
        (np.where(np.eye(4, 2) == 1, np.nan, 0.5), "2 of 4 rows are answered by NaN"),
    ):
        assert told in TWO.fault(answers.astype(np.float32))
        found = TWO.evaluate(classes, answers.astype(np.float32))
        assert "log_loss" not in found.metrics
        assert "accuracy" in found.metrics
    assert "NaN" in Regression().fault(np.array([1, np.nan]))
    assert Regression().evaluate(np.ones((2, 1)), np.array([1, np.nan])).metrics == {}
    assert "sigmoid" in LABELS.fault(np.array([[0.5, 2.0]]))
    assert TWO.fault(probabilities(5, 2)) == LABELS.fault(np.array([[0.5, 1.0]])) == ""


@settings(deadline=None)
@given(st.integers(2, 5), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_a_metric_that_these_rows_do_not_define_is_left_out(count: int, rows: int, seed: int) -> None:
    """Any classes in any few rows are measured without an error, a warning or NaN."""
    random = np.random.default_rng(seed)
    task = Classification(tuple(str(each) for each in range(count)))
    classes = random.choice(random.integers(0, count, 2), rows)
    with warnings.catch_warnings(action="error"):
        found = task.evaluate(classes, random.dirichlet(np.ones(count), rows).astype(np.float32))
    assert np.isfinite(list(found.metrics.values())).all()
    if len(np.unique(classes)) == 1:
        assert "roc_auc" not in found.metrics
        assert task.ranks(classes, found.answers).tolist() == [0.5] * rows


@settings(deadline=None)
@given(st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_labels_that_nobody_has_are_left_out(rows: int, seed: int) -> None:
    """Two labels of which the rows have none, some or all are measured without an error, a warning or NaN."""
    random = np.random.default_rng(seed)
    targets = random.random((rows, 2)) < random.choice([0, 0.5, 1], 2)
    with warnings.catch_warnings(action="error"):
        found = LABELS.evaluate(targets, random.random((rows, 2)).astype(np.float32))
    assert np.isfinite(list(found.metrics.values())).all()
    assert ("recall_wet" in found.parts) == targets[:, 0].any()


def test_what_clients_take_for_the_same_answer() -> None:
    """The likeliest class, each label, and a value within the usual distance of the targets from their median."""
    targets = np.array([[0.0], [1.0], [2.0]])
    cases: list[tuple[Task, Any, Any, list[bool]]] = [
        (TWO, [[0.9, 0.1], [0.6, 0.4]], [[0.6, 0.4], [0.4, 0.6]], [True, False]),
        (TWO, [0.1, 0.4], [0.4, 0.6], [True, False]),
        (LABELS, [[0.9, 0.1], [0.9, 0.1]], [[0.6, 0.4], [0.6, 0.6]], [True, False]),
        (Regression(), [1.0, 1.0], [1.6, 1.7], [True, False]),
        (ABSOLUTE, [1.0, 1.0], [5.0, np.nan], [True, False]),
    ]
    for task, before, after, same in cases:
        found = task.same_answer(np.array(before), np.array(after), targets)
        assert found.tolist() == same, task


def test_answers_are_described_in_few_words() -> None:
    """By class, by labels, by value."""
    assert THREE.described(np.array([0.1, 0.8, 0.1])) == "class 1"
    assert LABELS.described(np.array([0.9, 0.1])) == "labels wet"
    assert Regression().described(np.array([2.0])) == "2"
    assert ABSOLUTE.described(np.array([b"x", b"y"])) == "b'x', b'y'"


def test_a_part_of_the_rows_has_scores_of_its_own() -> None:
    """They are those of an evaluation of these rows alone, whose distances and ranks are others."""
    classes, answers, some = RANDOM.integers(0, 2, 50), probabilities(50, 2), np.arange(50) % 3 == 0
    ranked = Classification(("no", "yes"), score="roc_auc")
    values = RANDOM.lognormal(size=(50, 1))
    for task, targets in ((ranked, classes), (Regression(), values)):
        given = answers if task is ranked else answers[:, :1]
        part = task.evaluate(targets, given).of(some)
        np.testing.assert_array_equal(part.scores, task.evaluate(targets[some], given[some]).scores)
        assert len(part) == 17


def test_a_million_rows_are_evaluated_in_seconds() -> None:
    """A tenth of them in a fraction of a second, on ten classes too."""
    import time

    classes, answers = RANDOM.integers(0, 10, 100_000), probabilities(100_000, 10)
    task = Classification(tuple(map(str, range(10))))
    started = time.process_time()
    task.evaluate(classes, answers)
    assert time.process_time() - started < 2
