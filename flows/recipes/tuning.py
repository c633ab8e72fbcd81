"""
In which settings a recipe can be tuned: ``Recipe(tunable={"learning_rate": Between(0.001, 0.1, log=True)})``.

A setting is ``learning_rate``, ``batch_size`` or ``epochs``, which every recipe has, or a parameter of the recipe's own
`build`, which is then called with it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from serving.protocol.errors import HotswapError

if TYPE_CHECKING:
    from flows.recipes import Recipe

FIELDS = ("learning_rate", "batch_size", "epochs")
"""the settings that every recipe has"""


class CannotTune(HotswapError):
    """A recipe cannot be tuned like this."""


@dataclass(frozen=True, slots=True)
class Between:
    """A number from `low` to `high`, both included; a whole one where both are."""

    low: float
    high: float
    log: bool = False
    """whether factors count instead of differences, as for a learning rate"""

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise CannotTune(f"A setting is tuned from a lower to a higher number, not from {self.low} to {self.high}")


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of these values: numbers, strings or booleans."""

    values: tuple[Any, ...]

    def __init__(self, *values: Any) -> None:
        if len(values) < 2:
            raise CannotTune(f"A setting is one of at least two values, not of {list(values)}")
        object.__setattr__(self, "values", values)


Space = Mapping[str, Between | OneOf]


def check_space(recipe: Recipe) -> None:
    """
    Raises:
        CannotTune: A setting is neither one of `FIELDS` nor a parameter of the recipe's `build`.
    """
    known = {*FIELDS, *_parameters(recipe)}
    if unknown := sorted(recipe.tunable.keys() - known):
        raise CannotTune(
            f"The recipe {recipe.name!r} cannot be tuned in {', '.join(unknown)}: "
            f"name {', '.join(FIELDS)}, or a parameter of its build()"
        )


def with_settings(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """The recipe with these values of its settings."""
    fields = {name: settings[name] for name in FIELDS if name in settings}
    given = {name: settings[name] for name in settings if name in _parameters(recipe)}
    if given:
        fields["build"] = functools.update_wrapper(functools.partial(recipe.build, **given), recipe.build)
    return replace(recipe, **fields)


def current_settings(recipe: Recipe) -> dict[str, Any]:
    """The values that the recipe has without tuning, as far as it says them."""
    defaults = {name: each.default for name, each in _parameters(recipe).items()}
    said = {**defaults, **{name: getattr(recipe, name) for name in FIELDS}}
    return {name: said[name] for name in recipe.tunable if said[name] is not inspect.Parameter.empty}


def _parameters(recipe: Recipe) -> dict[str, inspect.Parameter]:
    """Those of `build`, without the training examples, which come first."""
    return dict(list(inspect.signature(recipe.build).parameters.items())[1:])
