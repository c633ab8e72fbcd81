"""Whether several candidates are asked for, and how they are told apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flows.parameters import InvalidParameter
from flows.recipes import Recipe
from flows.recipes.tuning import check_space


def check_asked(recipe: Recipe, parameters: Mapping[str, Any]) -> None:
    """
    See that the search that a training's parameters ask for can be made, before anything is begun.

    Raises:
        InvalidParameter: It cannot; the message says what to leave out or to add.
        CannotTune: The recipe names a setting that it does not have.
    """
    asked = [name for name in ("candidates", "tune") if parameters.get(name)]
    if len(asked) == 2:
        raise InvalidParameter("--candidates compares seeds and --tune settings: leave one out")
    if asked and parameters.get("resume"):
        raise InvalidParameter(f"--resume goes on with one training: leave out --{asked[0]}")
    if asked == ["tune"] and not space_of(recipe, parameters):
        raise InvalidParameter(
            f"The recipe {recipe.name!r} does not say what can be tuned: "
            "give it tunable={'learning_rate': Between(0.001, 0.1, log=True)}, from flows.recipes.tuning"
        )
    if asked == ["tune"]:
        check_space(recipe)


def space_of(recipe: Recipe, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What is searched: all that the recipe can be tuned in, but for the epochs where these are given."""
    return {name: each for name, each in recipe.tunable.items() if name != "epochs" or not parameters.get("epochs")}
