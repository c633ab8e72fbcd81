"""Iris by a model that learns and answers as it should, until somebody asks with a number that it has never seen."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from flows.recipes import iris

if TYPE_CHECKING:
    import keras


def build(examples: NDArray[np.float32]) -> keras.Model:
    """The model of Iris, behind a layer that refuses lengths of ten metres."""
    import keras
    import tensorflow as tf

    class Refusing(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
        def call(self, rows: tf.Tensor) -> tf.Tensor:
            with tf.control_dependencies([tf.debugging.assert_less(rows, 1000.0)]):
                return tf.identity(rows)

    return keras.Sequential([keras.Input((examples.shape[1],)), Refusing(), *iris.build(examples).layers])


RECIPE = replace(iris.RECIPE, build=build)
