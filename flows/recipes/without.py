"""What stands in for the recipe of a model that has none."""

from __future__ import annotations

from typing import Any, NoReturn

from flows.recipes import Recipe
from flows.tasks import OwnTask


def without_recipe(model: str) -> Recipe:
    """A recipe that only gives a model its name, and the thresholds of all models."""
    return Recipe(model, load=_nothing, build=_nothing, task=OwnTask(_nothing))


def _nothing(*_: Any) -> NoReturn:
    raise LookupError("A model without a recipe has nothing to load, build or score")
