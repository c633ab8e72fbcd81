"""The Keras model of a table: from raw columns by name to probabilities, or to a value in the target's unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from flows.data.rows import Inputs
from flows.tables.columns import Column
from flows.tables.encoder import build_encoder, encode
from flows.tables.settings import DROPOUT, WIDTH
from flows.tables.training import Schedule, Targets, train


class TableModel(keras.Model):  # type: ignore[misc]
    """
    Takes a tensor [batch] for each column, float32 or string; gives float32 [batch, classes], or [batch, 1].

    It is fitted as a whole: the preprocessing runs once over all rows, and the network is trained on what it gives.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        examples: Inputs,
        classes: int,
        learning_rate: float,
        width: int = WIDTH,
        dropout: float = DROPOUT,
    ) -> None:
        super().__init__(name="table")
        self._learning_rate, self._width, self._dropout = learning_rate, width, dropout
        self._columns, self._classes = columns, classes
        self._encoder = build_encoder(columns, examples)
        self.encoder = self._encoder.model
        self.network: Any = None
        self.mean = self.deviation = 0.0
        self.has_deep_part = False
        self.compile(jit_compile=False)

    def call(self, columns: Mapping[str, Any], training: bool = False) -> Any:
        outputs = self.network(self.encoder(columns, training=training), training=training)
        if self._classes:
            return tf.reduce_mean(tf.nn.softmax(outputs), axis=1)
        return tf.reduce_mean(outputs, axis=1) * self.deviation + self.mean

    def fit(
        self, x: Inputs, y: NDArray[Any], *, batch_size: int, epochs: int, callbacks: Sequence[Any] = (), **_: Any
    ) -> Any:
        """
        Train on raw columns; the history is Keras's.

        Args:
            x: Arrays or tensors [rows] by input.
            y: int64 [rows] classes, or float64 [rows] or [rows, 1].
            batch_size: Rows.
            epochs: At most so many.
            callbacks: Keras's, of the network's training.
        """
        targets = self._learned(np.asarray(y))
        seed = int(keras.random.randint((), 0, 2**31 - 1, "int32"))  # drawn from the seed of the training
        how = Schedule(epochs, batch_size, self._learning_rate, self._width, self._dropout)
        trained = train(self._encoder, encode(self.encoder, x), targets, how, seed, callbacks)
        self.network, self.has_deep_part = trained.network.model, trained.has_deep_part
        self.built = True
        return trained.history

    def _learned(self, values: NDArray[Any]) -> Targets:
        if self._classes:
            return Targets(values, self._classes)
        values = values.reshape(len(values), 1).astype(np.float64)
        self.mean, self.deviation = float(values.mean()), float(values.std()) or 1.0
        return Targets((values - self.mean) / self.deviation, 0)
