"""The parameters of commands, flows and Python, which are declared once."""

from __future__ import annotations

import inspect
from typing import Unpack

import pytest

from flows.parameters import (
    InvalidParameter,
    PromoteParameters,
    TrainParameters,
    check_bounds,
    description,
    spelled_out,
    types_of,
)
from flows.train_and_promote import promote, train_and_promote


@spelled_out
def given(recipe: str = "iris", *, verbose: bool = False, **parameters: Unpack[TrainParameters]) -> object:
    return recipe, verbose, parameters


def test_a_function_names_each_parameter_and_gets_all_of_them() -> None:
    """A parameter is in the signature with its type and default, and one that is not given has that default."""
    named = inspect.signature(given).parameters
    assert list(named) == ["recipe", *types_of(TrainParameters), "verbose"]
    assert named["seed"].default == 42
    assert named["epochs"].default is None
    defaults = {name: named[name].default for name in types_of(TrainParameters)}
    assert given("digits", epochs=3) == ("digits", False, {**defaults, "epochs": 3})


def test_what_is_no_parameter_is_refused() -> None:
    """A function that lists its parameters takes no other."""
    with pytest.raises(TypeError, match="sede"):
        given(sede=1)  # type: ignore[call-arg]


def test_the_flows_show_every_parameter_with_its_description() -> None:
    """Prefect's page has each parameter of a training and of a promotion, what it means, and its bounds."""
    for flow, declared in ((train_and_promote, TrainParameters), (promote, PromoteParameters)):
        shown = flow.parameters.properties
        assert list(shown) == ["recipe", *types_of(declared)]
        assert [shown[name].get("description") for name in types_of(declared)] == [
            description(hint) for hint in types_of(declared).values()
        ]
    assert train_and_promote.parameters.properties["seed"]["maximum"] == 2**32 - 1


@pytest.mark.parametrize("epochs", [0, 100_001])
def test_a_number_out_of_its_bounds_is_refused(epochs: int) -> None:
    """The message says which numbers are allowed."""
    with pytest.raises(InvalidParameter, match=rf"The epochs must be from 1 to 100000, not {epochs}"):
        check_bounds(TrainParameters, {"epochs": epochs})
    check_bounds(TrainParameters, {"epochs": None, "seed": 0, "label": "canary"})
