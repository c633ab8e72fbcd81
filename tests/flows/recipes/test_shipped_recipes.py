"""Shipped recipes on their whole way: train, gate, sandbox, publish, verify, label, replace and roll back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from clients import RestClient
from flows.recipes.finding import BUILT_IN, find_recipe
from flows.training.dataset import load_dataset

RECIPES = [name for name in BUILT_IN if name != "iris"]  # which other tests train
IN_MAKE_TEST = "linnerud"
"""numbers are predicted; pictures and texts go live in test_beginning.py"""


def test_a_shipped_recipe_goes_live_unchanged(home: Any) -> None:
    """It passes every gate."""
    (trained,) = home.run(("train", IN_MAKE_TEST))
    assert (trained["decision"], trained["live"]) == ("passed", True)


@pytest.mark.soak
@pytest.mark.parametrize("name", RECIPES)
def test_a_shipped_recipe_goes_live_is_replaced_and_comes_back(name: str, home: Any) -> None:
    """Two versions pass every gate and answer for the held-out rows what was judged; the first one comes back."""
    first, second, back = home.run(
        ("train", name), ("train", name, "--seed", "3"), ("rollback", name, "--reason", "a test")
    )
    assert [each["decision"] for each in (first, second)] == ["passed", "passed"]
    assert first["live"]
    assert second["previous"] == first["version"]
    assert back["version"] == first["version"]
    rows = load_dataset(find_recipe(name)).test
    with RestClient(f"http://127.0.0.1:{home.server.rest_port}") as client:
        answer = client.predict(name, {key: array[:3] for key, array in rows.inputs.items()})
    assert answer.version == first["version"]
    assert len(np.asarray(answer.outputs["output"])) == 3
