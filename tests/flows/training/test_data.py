"""Data and recipes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from flows.recipes import InvalidThresholds, Recipe
from flows.recipes.finding import UnknownRecipe, find_recipe
from flows.tasks import UnusableTargets
from flows.training.dataset import UnusableData, load_dataset
from flows.user_code import RecipeFailed
from serving.protocol.errors import HotswapError

BASE = find_recipe("iris")
EXAMPLES = np.tile(np.arange(12.0).reshape(6, 2), (5, 1))
CLASSES = np.tile(np.array([0, 1]), 15)


def recipe(examples: Any = EXAMPLES, classes: Any = CLASSES) -> Recipe:
    """A recipe of two features and two classes over these data."""
    return replace(
        BASE, name="own", load=lambda: (examples, classes), feature_names=("a", "b"), class_names=("no", "yes")
    )


@pytest.mark.parametrize("name", ["iris", "digits"])
def test_the_split_is_always_the_same(name: str) -> None:
    """A fifth of each class is held out, the same rows every time, and none of them is trained on."""
    first, second = load_dataset(find_recipe(name)), load_dataset(find_recipe(name))
    assert first.digest == second.digest
    np.testing.assert_array_equal(first.test.examples, second.test.examples)
    rows = len(first.train) + len(first.test)
    assert len(first.test) == pytest.approx(rows / 5, abs=len(first.class_names))
    assert set(first.test.targets) == set(range(len(first.class_names)))


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
    with pytest.raises((UnusableData, UnusableTargets)) as caught:
        load_dataset(recipe(examples, classes))
    assert told in caught.value.message
    assert "own" in caught.value.message


def test_data_that_cannot_be_loaded_are_reported_with_their_cause() -> None:
    """A recipe that raises is the user's code: its error is passed on in one sentence."""

    def broken() -> Any:
        raise OSError("no such table")

    with pytest.raises(RecipeFailed, match=r"OSError: no such table, at .*test_data\.py"):
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


@pytest.mark.parametrize(
    ("thresholds", "told"),
    [
        ({"min_accuracy": 1.5}, "min_accuracy is a share from 0 to 1"),
        ({"margin": -0.1}, "margin is a share"),
        ({"margin": float("nan")}, "margin is a share"),
        ({"confidence": 0.5}, "confidence is between 0.5 and 1"),
        ({"slice_columns": ("petal_length_cm", "colour")}, "no feature ['colour']"),
    ],
)
def test_thresholds_that_cannot_be_asked_are_refused(thresholds: dict[str, Any], told: str) -> None:
    """A recipe with a mistake in its thresholds does not get as far as a training."""
    with pytest.raises(InvalidThresholds) as caught:
        replace(BASE, thresholds=replace(BASE.thresholds, **thresholds))
    assert told in caught.value.message
