"""What is searched, and by which rows."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from flows.data.split import ByGroup, ByTime
from flows.parameters import InvalidParameter
from flows.recipes import Recipe
from flows.recipes.tuning import Between, CannotTune, OneOf, current_settings, with_settings
from flows.search.asked import check_asked, space_of
from flows.search.trials import search
from flows.search.validation import without_validation
from flows.training.dataset import UnusableData, load_dataset
from tests.flows.search.searched_recipe import RECIPE


def with_columns() -> tuple[Any, ...]:
    """200 rows, each with a shop and a day."""
    random = np.random.default_rng(3)
    examples = random.normal(size=(200, 3))
    return examples, random.integers(0, 2, 200), {"shop": random.integers(0, 25, 200), "day": np.arange(200)}


def test_the_validation_rows_are_training_rows() -> None:
    """About a fifth of them; none is held out, and none is still trained on."""
    dataset = load_dataset(RECIPE)
    kept, validation = without_validation(RECIPE, dataset)
    assert set(validation.ids) | set(kept.train.ids) == set(dataset.train.ids)
    assert not np.isin(validation.ids, kept.train.ids).any()
    assert not np.isin(validation.ids, dataset.test.ids).any()
    assert 0.1 < len(validation) / len(dataset.train) < 0.3


def test_rows_split_by_time_are_validated_by_the_newest() -> None:
    """As they are judged by newer ones."""
    recipe = replace(RECIPE, load=with_columns, split=ByTime("day", 0.2), tunable={})
    kept, validation = without_validation(recipe, load_dataset(recipe))
    assert kept.train.extras["day"].max() < validation.extras["day"].min()
    assert validation.extras["day"].max() < 160


def test_rows_split_by_group_are_validated_by_whole_groups() -> None:
    """No shop is on both sides."""
    recipe = replace(RECIPE, load=with_columns, split=ByGroup("shop", 0.2), tunable={})
    kept, validation = without_validation(recipe, load_dataset(recipe))
    assert not np.isin(validation.extras["shop"], kept.train.extras["shop"]).any()


def test_too_few_rows_are_refused() -> None:
    """Rather than none to compare by."""
    dataset = load_dataset(RECIPE)
    few = replace(dataset, train=dataset.train.take(np.arange(1)))
    with pytest.raises(UnusableData, match="too small to compare candidates"):
        without_validation(RECIPE, few)


def tried(seed: int, trials: int = 10) -> list[dict[str, Any]]:
    """The settings that are tried for a known best, of which one fails."""
    found: list[dict[str, Any]] = []

    def score(settings: Any) -> list[float | None]:
        found.extend(settings)
        return [None if each["width"] == 2 else -abs(each["learning_rate"] - 0.1) for each in settings]

    search(RECIPE.tunable, current_settings(RECIPE), trials, seed, score)
    return found


def test_a_seed_tries_the_same_settings_again() -> None:
    """The first are those of the recipe, all are within their bounds, and another seed tries others."""
    settings = tried(1)
    assert settings == tried(1) != tried(2)
    assert settings[0] == {"learning_rate": 0.05, "width": 4, "epochs": 6}
    assert all(0.001 <= each["learning_rate"] <= 0.2 and each["width"] in (2, 4, 8) for each in settings)
    assert {type(each["epochs"]) for each in settings} == {int}


def test_settings_reach_the_recipe_and_its_network() -> None:
    """`learning_rate` is the recipe's, `width` is handed to its build()."""
    recipe = with_settings(RECIPE, {"learning_rate": 0.1, "width": 8})
    assert recipe.learning_rate == 0.1
    random.seed(1)
    assert recipe.build(np.zeros((5, 3), np.float32)).layers[0].units == 8


def test_what_cannot_be_tuned_is_refused_at_once() -> None:
    """A recipe names settings that it has, and ranges that are some."""
    with pytest.raises(CannotTune, match=r"'searched' cannot be tuned in depth: name learning_rate, batch_size"):
        check_asked(replace(RECIPE, tunable={"depth": OneOf(1, 2)}), {"tune": 2})
    with pytest.raises(CannotTune, match="from a lower to a higher number"):
        Between(2, 1)
    with pytest.raises(CannotTune, match="at least two values"):
        OneOf(1)


@pytest.mark.parametrize(
    ("recipe", "parameters", "message"),
    [
        (RECIPE, {"candidates": 3, "tune": 3}, "leave one out"),
        (RECIPE, {"candidates": 3, "resume": "1"}, "leave out --candidates"),
        (replace(RECIPE, tunable={}), {"tune": 3}, "does not say what can be tuned"),
        (replace(RECIPE, tunable={"epochs": Between(1, 9)}), {"tune": 3, "epochs": 4}, "does not say what can be"),
    ],
)
def test_a_search_that_cannot_be_made_is_refused_at_once(
    recipe: Recipe, parameters: dict[str, Any], message: str
) -> None:
    """Before anything is trained."""
    with pytest.raises(InvalidParameter, match=message):
        check_asked(recipe, parameters)


def test_given_epochs_are_not_searched() -> None:
    """What the command line says stays so."""
    assert "epochs" in space_of(RECIPE, {})
    assert "epochs" not in space_of(RECIPE, {"epochs": 3})
