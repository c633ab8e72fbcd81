"""Linnerud's exercises: weight, waist and pulse of twenty men, all three from three exercises."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flows.recipes import Recipe, Thresholds
from flows.tasks import Regression

if TYPE_CHECKING:
    import keras


def load() -> tuple[NDArray[Any], NDArray[Any]]:
    """20 rows: chin-ups, sit-ups and jumps [20, 3]; weight in pounds, waist in inches, pulse a minute [20, 3]."""
    from sklearn.datasets import load_linnerud

    bunch = load_linnerud()
    return bunch.data, bunch.target


def build(examples: NDArray[np.float32]) -> keras.Model:
    """Three linear answers around the means of the three, which is all that so few rows can teach."""
    import keras

    values = keras.Input((examples.shape[1],))
    normal = keras.layers.Normalization(mean=examples.mean(axis=0), variance=examples.var(axis=0))(values)
    around = keras.layers.Dense(3, kernel_initializer="zeros", kernel_regularizer="l2")(normal)
    return keras.Model(values, keras.layers.Rescaling([20.0, 2.5, 6.0], offset=[178.0, 35.0, 56.0])(around))


RECIPE = Recipe(
    name="linnerud",
    load=load,
    build=build,
    feature_names=("chins", "situps", "jumps"),
    task=Regression(("weight", "waist", "pulse")),
    epochs=30,
    batch_size=16,
    learning_rate=0.02,
    # So few rows that no model can be shown to be better than the mean, or as good as the one before.
    thresholds=Thresholds(at_most={"mae_pulse": 12.0, "mae_waist": 5.0}, inconclusive_passes=True),
)
