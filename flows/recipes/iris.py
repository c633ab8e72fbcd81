"""Fisher's Iris: four lengths in centimetres, three species."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flows.recipes import Recipe, Thresholds
from flows.recipes.tuning import Between, OneOf

if TYPE_CHECKING:
    import keras


def load() -> tuple[NDArray[Any], NDArray[Any]]:
    """150 rows: examples [150, 4] in centimetres, species [150]."""
    from sklearn.datasets import load_iris

    bunch = load_iris()
    return bunch.data, bunch.target


def build(examples: NDArray[np.float32], width: int = 16) -> keras.Model:
    """A small dense network behind a normalisation with the mean and variance of the training examples."""
    import keras

    return keras.Sequential(
        [
            keras.Input((examples.shape[1],)),
            keras.layers.Normalization(mean=examples.mean(axis=0), variance=examples.var(axis=0)),
            keras.layers.Dense(width, activation="relu"),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )


RECIPE = Recipe(
    name="iris",
    load=load,
    build=build,
    feature_names=("sepal_length_cm", "sepal_width_cm", "petal_length_cm", "petal_width_cm"),
    class_names=("setosa", "versicolor", "virginica"),
    epochs=40,
    batch_size=32,
    learning_rate=0.02,
    tunable={"learning_rate": Between(0.002, 0.1, log=True), "width": OneOf(8, 16, 32)},
    # 30 held-out rows: the smallest margin under which a retraining with one more of them wrong still passes.
    thresholds=Thresholds(
        min_accuracy=0.9, min_macro_f1=0.9, max_log_loss=0.3, margin=0.15, min_slice_rows=10, max_bytes=1 << 20
    ),
)
