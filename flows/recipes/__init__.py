"""What can be trained: the recipes that come with hotswap, and those that a dotted path names."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from serving.errors import HotswapError
from serving.repository import validate_model_name

if TYPE_CHECKING:
    import keras

BUILT_IN = ("iris", "digits")


class UnknownRecipe(HotswapError):
    """No recipe has this name."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that the flow needs to know about one classification problem."""

    name: str
    """the model's name, in the registry and on the server"""
    load: Callable[[], tuple[NDArray[Any], NDArray[Any]]]
    """gives examples [rows, features] and their classes [rows], counted from 0 in the order of `class_names`"""
    build: Callable[[NDArray[np.float32]], keras.Model]
    """gives a Keras model for these training examples: raw features in, class probabilities out"""
    feature_names: tuple[str, ...]
    class_names: tuple[str, ...]
    epochs: int
    batch_size: int = 32
    learning_rate: float = 0.01


def find_recipe(name: str) -> Recipe:
    """
    The recipe called `name`: one of hotswap's own, or ``package.module``, or ``package.module:attribute``.

    The attribute is ``RECIPE`` where none is given.

    Raises:
        UnknownRecipe: There is none; the message says what can be named instead.
    """
    path, _, attribute = name.partition(":")
    module_name = f"flows.recipes.{path}" if path in BUILT_IN else path
    if path not in BUILT_IN and "." not in path and not attribute:
        raise UnknownRecipe(f"There is no recipe {name!r}: name {_choices()}, or a module of your own")
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError, TypeError) as exc:
        raise UnknownRecipe(f"The recipe {name!r} cannot be imported ({exc}): name {_choices()}, or a module") from exc
    recipe = getattr(module, attribute or "RECIPE", None)
    if not isinstance(recipe, Recipe):
        raise UnknownRecipe(f"{module_name} has no flows.recipes.Recipe called {attribute or 'RECIPE'}")
    validate_model_name(recipe.name)
    return recipe


def _choices() -> str:
    return " or ".join(BUILT_IN)
