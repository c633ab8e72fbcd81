"""Iris by a model that looks at all rows of a request: as it is meant to, and as nobody said that it may."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from flows.recipes import iris

if TYPE_CHECKING:
    import keras


def build(examples: NDArray[np.float32]) -> keras.Model:
    """The model of Iris, behind a layer that adds a little of the mean of all rows."""
    import keras
    import tensorflow as tf

    class Comparing(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
        def call(self, rows: tf.Tensor) -> tf.Tensor:
            return rows + 0.01 * tf.reduce_mean(rows, axis=0, keepdims=True)

    return keras.Sequential([keras.Input((examples.shape[1],)), Comparing(), *iris.build(examples).layers])


RECIPE = replace(iris.RECIPE, name="comparing", build=build, rows_independent=False)
UNSAID = replace(RECIPE, name="comparing_unsaid", rows_independent=True)
