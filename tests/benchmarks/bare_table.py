"""
The least that a training of a table can be: read a CSV, preprocess by Keras layers, train, export.

``bare_table.py CSV DIRECTORY EPOCHS``; the last column is the target.
"""

import sys

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

frame = pd.read_csv(sys.argv[1])
target = frame.columns[-1]
classes, truth = np.unique(frame.pop(target), return_inverse=True)
held_out = np.arange(len(frame)) % 5 == 0
columns: dict[str, object] = {}
inputs, features = {}, []
for name in frame.columns:
    if frame[name].dtype.kind in "fi":
        values = frame[name].fillna(frame[name].median()).to_numpy(np.float32)
        inputs[name] = keras.Input((1,), name=name)
        normal = keras.layers.Normalization()
        normal.adapt(values[~held_out, None])
        features.append(normal(inputs[name]))
    else:
        values = frame[name].fillna("").to_numpy(object)
        inputs[name] = keras.Input((1,), name=name, dtype="string")
        lookup = keras.layers.StringLookup()
        lookup.adapt(tf.constant(values[~held_out]))
        embedded = keras.layers.Embedding(lookup.vocabulary_size(), 8)(lookup(inputs[name]))
        features.append(keras.layers.Flatten()(embedded))
    columns[name] = tf.constant(values[:, None])
hidden = keras.layers.Concatenate()(features)
for _ in range(2):
    hidden = keras.layers.Dropout(0.2)(keras.layers.Dense(96, "relu")(hidden))
model = keras.Model(inputs, keras.layers.Dense(len(classes), "softmax")(hidden))
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
rows = np.flatnonzero(~held_out)
train = {name: tf.gather(values, rows) for name, values in columns.items()}
stop = keras.callbacks.EarlyStopping(patience=3, restore_best_weights=True)
model.fit(
    train, truth[rows], batch_size=256, epochs=int(sys.argv[3]), validation_split=0.15, callbacks=[stop], verbose=0
)
rows = np.flatnonzero(held_out)
test = {name: tf.gather(values, rows) for name, values in columns.items()}
print(model.evaluate(test, truth[rows], batch_size=4096, verbose=0))
model.export(sys.argv[2], verbose=False)
