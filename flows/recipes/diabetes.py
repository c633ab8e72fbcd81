"""Diabetes after a year, as one number, from ten measurements: a regression."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flows.recipes import Recipe
from flows.tasks import Regression

if TYPE_CHECKING:
    import keras


def load() -> tuple[NDArray[Any], NDArray[Any]]:
    """442 rows: age, sex, body mass index, blood pressure, six blood values [442, 10]; progression [442], 25 to 346."""
    from sklearn.datasets import load_diabetes

    bunch = load_diabetes(scaled=False)
    return bunch.data, bunch.target


def build(examples: NDArray[np.float32]) -> keras.Model:
    """A linear answer and a small network beside it, in the range of the targets."""
    import keras

    values = keras.Input((examples.shape[1],))
    normal = keras.layers.Normalization(mean=examples.mean(axis=0), variance=examples.var(axis=0))(values)
    hidden = keras.layers.Dense(32, activation="relu")(normal)
    answer = keras.layers.Dense(1, kernel_initializer="zeros")(keras.layers.Concatenate()([normal, hidden]))
    return keras.Model(values, keras.layers.Rescaling(75.0, offset=150.0)(answer))


RECIPE = Recipe(
    name="diabetes",
    load=load,
    build=build,
    feature_names=("age", "sex", "bmi", "blood_pressure", "tc", "ldl", "hdl", "tch", "ltg", "glucose"),
    task=Regression(("progression",)),
    epochs=10,
    batch_size=32,
    learning_rate=0.005,
)
"""It sets no floors: a model has to beat the dummy, and must not be clearly worse than ridge regression."""
