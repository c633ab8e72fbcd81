"""A small problem of two classes; every few seeds, such as 43, it cannot be built, and it can be tuned."""

from __future__ import annotations

import random
from typing import Any

import keras
import numpy as np

from flows.recipes import Recipe, Thresholds
from flows.recipes.tuning import Between, OneOf


def load() -> tuple[Any, Any]:
    """300 rows of three numbers, and which side of a plane each is on."""
    examples = np.random.default_rng(5).normal(size=(300, 3))
    return examples, (examples @ [1.0, -2.0, 0.5] > 0).astype(int)


def build(examples: Any, width: int = 4) -> keras.Model:
    """A network of one hidden layer."""
    if random.random() < 0.1:
        raise ValueError("this seed cannot be built")
    hidden = keras.layers.Dense(width, activation="relu")
    return keras.Sequential([keras.Input((3,)), hidden, keras.layers.Dense(2, activation="softmax")])


RECIPE = Recipe(
    name="searched",
    load=load,
    build=build,
    feature_names=("a", "b", "c"),
    class_names=("below", "above"),
    epochs=6,
    learning_rate=0.05,
    thresholds=Thresholds(min_accuracy=0.6),
    tunable={"learning_rate": Between(0.001, 0.2, log=True), "width": OneOf(2, 4, 8), "epochs": Between(3, 9)},
)
