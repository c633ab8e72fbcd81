"""
The preprocessing of a table, as Keras layers: what is in the graph of the model, so that clients send raw columns.

Each gives the same for a row whatever rows are with it, and by operations for which that is proven
(docs/merging.md), but for the words of texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from flows.tables import dates


class Standardised(keras.layers.Layer):  # type: ignore[misc]
    """
    Numbers [batch, columns], NaN where missing, to mean 0 and variance 1; what is missing gets the median.

    Values far outside of what training had are cut, so that one slip of a client does not make a nonsense of the rest.
    Those columns that missed values in training get a column each that says where.
    """

    def __init__(self, values: NDArray[np.float32]) -> None:
        super().__init__()
        known = np.where(np.isfinite(values), values, np.nan).astype(np.float64)
        missing = np.isnan(known)
        self.medians = _or_zero(np.nanmedian(known, axis=0))
        filled = np.where(missing, self.medians, known)
        low, high = filled.min(axis=0), filled.max(axis=0)
        self.lowest, self.highest = 2 * low - high, 2 * high - low
        self.means, deviations = filled.mean(axis=0), filled.std(axis=0)
        self.deviations = np.where(deviations > 0, deviations, 1.0)
        self.telling = np.flatnonzero(missing.any(axis=0))

    def call(self, values: Any) -> Any:
        known = tf.math.is_finite(values)
        filled = tf.clip_by_value(
            tf.where(known, values, _floats(self.medians)), _floats(self.lowest), _floats(self.highest)
        )
        scaled = (filled - _floats(self.means)) / _floats(self.deviations)
        if not len(self.telling):
            return scaled
        told = tf.gather(tf.cast(~known, tf.float32), tf.constant(self.telling, tf.int32), axis=1)
        return tf.concat([scaled, told], axis=1)


class DateFeatures(keras.layers.Layer):  # type: ignore[misc]
    """Texts [batch] to what `dates.features` says, NaN where it is no date."""

    def __init__(self, format_name: str, with_time: bool) -> None:
        super().__init__()
        self.format_name, self.with_time = format_name, with_time

    def call(self, texts: Any) -> Any:
        days, seconds, is_date = dates.parse(tf.strings.strip(texts), self.format_name)
        found = dates.features(days, seconds, self.with_time)
        return tf.where(tf.expand_dims(is_date, 1), found, np.float32(np.nan))


class Stripped(keras.layers.Layer):  # type: ignore[misc]
    """Texts without the blanks around them, in lower case where that makes no difference."""

    def __init__(self, lower: bool) -> None:
        super().__init__()
        self.lower = lower

    def call(self, texts: Any) -> Any:
        stripped = tf.strings.strip(texts)
        return tf.strings.lower(stripped, encoding="utf-8") if self.lower else stripped


class TokenWeights(keras.layers.Layer):  # type: ignore[misc]
    """
    How much each word of a text counts: as TF-IDF, each row of length 1.

    Takes the words' numbers int64 [batch, words], 0 where there are no more; a word that comes twice counts twice.
    """

    def __init__(self, inverse_frequencies: NDArray[np.float32]) -> None:
        super().__init__()
        self.inverse_frequencies = inverse_frequencies

    def call(self, tokens: Any) -> Any:
        weights = tf.gather(tf.constant(self.inverse_frequencies), tokens)
        same = tf.cast(tf.equal(tokens[:, :, None], tokens[:, None, :]), tf.float32)
        squares = tf.reduce_sum(tf.reduce_sum(same, axis=2) * weights**2, axis=1, keepdims=True)
        return weights / tf.sqrt(tf.maximum(squares, 1e-12))


class Buckets(keras.layers.Layer):  # type: ignore[misc]
    """
    How far each number of [batch, columns] has come through each interval of its column, [batch, columns, intervals].

    The intervals are between quantiles of the training rows, so that a network can bend where the values are.

    Source: Gorishniy et al., On Embeddings for Numerical Features in Tabular Deep Learning (piecewise linear encoding)
    """

    def __init__(self, edges: Sequence[NDArray[np.float64]]) -> None:
        super().__init__()
        intervals = max((len(each) for each in edges), default=2) - 1
        self.starts = np.zeros((len(edges), intervals), np.float32)
        self.scales = np.zeros((len(edges), intervals), np.float32)
        for column, each in enumerate(edges):
            self.starts[column, : len(each) - 1] = each[:-1]
            self.scales[column, : len(each) - 1] = 1 / np.diff(each)

    def call(self, numbers: Any) -> Any:
        through = (tf.expand_dims(numbers, 2) - tf.constant(self.starts)) * tf.constant(self.scales)
        return tf.clip_by_value(through, 0.0, 1.0)


class Renumbered(keras.layers.Layer):  # type: ignore[misc]
    """Other numbers int32 for those from 0 on."""

    def __init__(self, numbers: NDArray[np.int32]) -> None:
        super().__init__()
        self.numbers = self.add_weight(
            numbers.shape, dtype="int32", trainable=False, initializer=lambda *_, **__: tf.constant(numbers)
        )

    def call(self, given: Any) -> Any:
        return tf.gather(self.numbers.value, given)


class SummedEmbedding(keras.layers.Layer):  # type: ignore[misc]
    """A vector for each number of [batch, numbers], summed to [batch, size], by weights where there are any."""

    def __init__(self, entries: int, size: int, initializer: str) -> None:
        super().__init__()
        self.embedding = keras.layers.Embedding(entries, size, embeddings_initializer=initializer)

    def call(self, numbers: Any, weights: Any = None) -> Any:
        vectors = self.embedding(numbers)
        return tf.reduce_sum(vectors if weights is None else vectors * tf.expand_dims(weights, 2), axis=1)


class Members(keras.layers.Layer):  # type: ignore[misc]
    """
    The features [batch, size] as several members see them, each by scales of its own, [batch, members, size].

    Source: Gorishniy et al., TabM: Advancing Tabular Deep Learning with Parameter-Efficient Ensembling
    """

    def __init__(self, members: int) -> None:
        super().__init__()
        self.members = members

    def build(self, shape: Any) -> None:
        def signs(shape: Any, dtype: Any = None) -> Any:
            return tf.cast(keras.random.randint(shape, 0, 2) * 2 - 1, dtype)

        self.scales = self.add_weight((self.members, shape[-1]), initializer=signs)

    def call(self, features: Any) -> Any:
        return tf.expand_dims(features, 1) * self.scales


class Heads(keras.layers.Layer):  # type: ignore[misc]
    """A dense layer for each member, [batch, members, size] to [batch, members, outputs], that begins by giving 0."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs

    def build(self, shape: Any) -> None:
        self.kernels = self.add_weight((*shape[1:], self.outputs), initializer="zeros")
        self.biases = self.add_weight((shape[1], self.outputs), initializer="zeros")

    def call(self, features: Any) -> Any:
        return tf.einsum("bms,mso->bmo", features, self.kernels) + self.biases


def _floats(values: NDArray[np.float64]) -> Any:
    return tf.constant(values, tf.float32)


def _or_zero(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.isfinite(values), values, 0.0)
