"""Data, recipes and the gate."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from flows.dataset import UnusableData, load_dataset
from flows.evaluation import Evaluation, compare
from flows.gates import Verdict, judge
from flows.recipes import BUILT_IN, Recipe, UnknownRecipe, find_recipe
from serving.errors import HotswapError

BASE = find_recipe("iris")
EXAMPLES = np.tile(np.arange(12.0).reshape(6, 2), (5, 1))
CLASSES = np.tile(np.array([0, 1]), 15)


def recipe(examples: Any = EXAMPLES, classes: Any = CLASSES) -> Recipe:
    """A recipe of two features and two classes over these data."""
    return replace(
        BASE, name="own", load=lambda: (examples, classes), feature_names=("a", "b"), class_names=("no", "yes")
    )


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_split_is_always_the_same(name: str) -> None:
    """A fifth of each class is held out, the same rows every time, and none of them is trained on."""
    first, second = load_dataset(find_recipe(name)), load_dataset(find_recipe(name))
    assert first.digest == second.digest
    np.testing.assert_array_equal(first.test.examples, second.test.examples)
    rows = len(first.train) + len(first.test)
    assert len(first.test) == pytest.approx(rows / 5, abs=len(first.class_names))
    assert set(first.test.classes) == set(range(len(first.class_names)))


def test_other_data_have_another_digest() -> None:
    """One changed number changes the digest."""
    changed = EXAMPLES.copy()
    changed[0, 0] += 1
    assert load_dataset(recipe()).digest != load_dataset(recipe(changed)).digest


@pytest.mark.parametrize(
    ("examples", "classes", "told"),
    [
        (np.empty((0, 2)), np.empty(0, int), "no rows"),
        (np.where(EXAMPLES == 3, np.nan, EXAMPLES), CLASSES, "NaN"),
        (np.where(EXAMPLES == 3, np.inf, EXAMPLES), CLASSES, "NaN or infinite"),
        (EXAMPLES, np.zeros(30, int), "one class"),
        (EXAMPLES, np.array([1] + [0] * 29), "at least two rows of each class"),
        (EXAMPLES, np.array([0, 2] * 15), "from 0 to 1"),
        (EXAMPLES, CLASSES.astype(float), "integers"),
        (EXAMPLES[:, :1], CLASSES, "expected [rows, 2]"),
        (EXAMPLES, CLASSES[:-1], "expected [rows, 2]"),
        (EXAMPLES.astype(str) + "x", CLASSES, "not numbers"),
    ],
)
def test_data_that_cannot_be_trained_on_are_refused(examples: Any, classes: Any, told: str) -> None:
    """The message names the recipe and says what is wrong with its data."""
    with pytest.raises(UnusableData) as caught:
        load_dataset(recipe(examples, classes))
    assert told in caught.value.message
    assert "own" in caught.value.message


def test_data_that_cannot_be_loaded_are_told_with_their_cause() -> None:
    """A recipe that raises is the user's code: its error is passed on in one sentence."""

    def broken() -> Any:
        raise OSError("no such table")

    with pytest.raises(UnusableData, match="OSError: no such table"):
        load_dataset(replace(recipe(), load=broken))


@pytest.mark.parametrize(
    "name", ["nonsense", "", "no.such.module", "flows.recipes", "flows.recipes.iris:NOTHING", ".x"]
)
def test_an_unknown_recipe_says_what_can_be_named(name: str) -> None:
    """Neither a typo nor a module without a recipe gets further than one sentence."""
    with pytest.raises(HotswapError) as caught:
        find_recipe(name)
    assert isinstance(caught.value, UnknownRecipe)


def test_a_recipe_of_ones_own_is_found_by_its_dotted_path() -> None:
    """``package.module`` and ``package.module:attribute`` name the same recipe."""
    assert find_recipe("flows.recipes.iris") is find_recipe("flows.recipes.iris:RECIPE") is BASE


def evaluation(correct: int, of: int) -> Evaluation:
    """Two classes, `correct` of `of` rows right, with certainty."""
    probabilities = np.zeros((of, 2), np.float32)
    probabilities[np.arange(of), (np.arange(of) >= correct).astype(int)] = 1
    return compare(probabilities, np.zeros(of, np.int64))


@pytest.mark.parametrize(
    ("correct", "required", "verdict"),
    [(9, 0.9, Verdict.PASSED), (8, 0.9, Verdict.REJECTED), (0, 0.0, Verdict.PASSED), (10, 1.0, Verdict.PASSED)],
)
def test_the_gate_passes_at_its_limit(correct: int, required: float, verdict: Verdict) -> None:
    """As much as is required is enough; less is rejected, with both numbers in the reason."""
    decision = judge(evaluation(correct, 10), required)
    assert decision.verdict is verdict
    if verdict is Verdict.REJECTED:
        assert "0.8000 is below 0.9000" in decision.reason
        assert "| accuracy | 0.8000 | >= 0.9000 | rejected |" in decision.markdown


def test_a_model_that_answers_nan_is_rejected_however_accurate() -> None:
    """Probabilities that are none are found even where the likeliest class is right."""
    broken = np.full((10, 2), np.nan, np.float32)
    assert judge(compare(broken, np.zeros(10, np.int64)), 0.0).verdict is Verdict.REJECTED


def test_metrics_are_those_of_scikit_learn() -> None:
    """Accuracy, macro F1 and log loss agree with the library that everybody compares with."""
    from sklearn import metrics

    random = np.random.default_rng(0)
    exact = random.dirichlet(np.ones(4), 200)
    probabilities = exact.astype(np.float32)
    classes = random.integers(0, 4, 200)
    found = compare(probabilities, classes)
    predicted = probabilities.argmax(axis=1)
    assert found.accuracy == pytest.approx(metrics.accuracy_score(classes, predicted))
    assert found.macro_f1 == pytest.approx(metrics.f1_score(classes, predicted, average="macro"))
    assert found.log_loss == pytest.approx(metrics.log_loss(classes, exact), rel=1e-4)
