"""Handwritten digits as pictures, 8 by 8 pixels of 0 to 16 in one channel, by a small convolutional network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flows.recipes import Recipe, Thresholds

if TYPE_CHECKING:
    import keras


def load() -> tuple[NDArray[Any], NDArray[Any]]:
    """1797 pictures: uint8 [1797, 8, 8, 1] from 0 to 16, digit [1797]."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return bunch.images[..., np.newaxis].astype(np.uint8), bunch.target


def build(examples: NDArray[np.uint8]) -> keras.Model:
    """Two convolutions behind a rescaling to 0..1."""
    import keras

    return keras.Sequential(
        [
            keras.Input(examples.shape[1:], dtype="uint8"),
            keras.layers.Rescaling(1 / 16),
            keras.layers.Conv2D(8, 3, activation="relu"),
            keras.layers.Conv2D(16, 3, strides=2, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )


RECIPE = Recipe(
    name="digits_images",
    load=load,
    build=build,
    class_names=tuple("0123456789"),
    epochs=15,
    batch_size=128,
    learning_rate=0.02,
    thresholds=Thresholds(min_accuracy=0.93, max_log_loss=0.3, margin=0.03),
)
