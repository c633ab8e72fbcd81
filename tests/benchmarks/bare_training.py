"""The least that a training can be: import TensorFlow, train the Keras model of the Iris recipe, export it."""

import sys

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_iris

examples, classes = load_iris(return_X_y=True)
held_out = np.arange(len(classes)) % 5 == 0
rows = examples[~held_out].astype(np.float32)
keras.utils.set_random_seed(42)
model = keras.Sequential(
    [
        keras.Input((4,)),
        keras.layers.Normalization(mean=rows.mean(axis=0), variance=rows.var(axis=0)),
        keras.layers.Dense(16, activation="relu"),
        keras.layers.Dense(3, activation="softmax"),
    ]
)
model.compile(
    optimizer=keras.optimizers.Adam(0.02),
    loss="sparse_categorical_crossentropy",
    metrics=["accuracy"],
    jit_compile=False,
)
model.fit(rows, classes[~held_out], batch_size=32, epochs=40, verbose=0)
module = tf.Module()
module.weights = [variable.value for variable in model.variables]
signature = tf.function(
    lambda input: {"output": model(input, training=False)},
    input_signature=[tf.TensorSpec([None, 4], tf.float32, name="input")],
)
tf.saved_model.save(module, sys.argv[1], signatures={"serving_default": signature})
