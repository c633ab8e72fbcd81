"""Handwritten digits: 8 by 8 pixels of 0 to 16, row by row, ten classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flows.recipes import Recipe, Thresholds
from flows.recipes.tuning import Between, OneOf

if TYPE_CHECKING:
    import keras


def load() -> tuple[NDArray[Any], NDArray[Any]]:
    """1797 rows: pixels [1797, 64] from 0 to 16, digit [1797]."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return bunch.data, bunch.target


def build(examples: NDArray[np.float32], width: int = 64) -> keras.Model:
    """A dense network behind a rescaling to 0..1; some pixels never vary, so their variance cannot be divided by."""
    import keras

    return keras.Sequential(
        [
            keras.Input((examples.shape[1],)),
            keras.layers.Rescaling(1 / 16),
            keras.layers.Dense(width, activation="relu"),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )


RECIPE = Recipe(
    name="digits",
    load=load,
    build=build,
    feature_names=tuple(f"pixel_{row}_{column}" for row in range(8) for column in range(8)),
    class_names=tuple("0123456789"),
    epochs=15,
    batch_size=64,
    learning_rate=0.005,
    tunable={"learning_rate": Between(0.0005, 0.05, log=True), "width": OneOf(32, 64, 128)},
    thresholds=Thresholds(min_accuracy=0.9, min_macro_f1=0.9, max_log_loss=0.3, margin=0.03, max_bytes=1 << 20),
)
