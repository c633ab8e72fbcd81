"""
The network behind the preprocessing: a linear part, and a deep part that begins by adding nothing.

docs/tables.md says how it is trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from flows.tables.encoder import Encoded, Encoder
from flows.tables.layers import Buckets, Heads, Members, Renumbered, SummedEmbedding
from flows.tables.linear import Linear

_INTERVALS = 24
_NUMBER_SIZE = 8
_CATEGORY_SIZE = 8
_WORD_SIZE = 24


@dataclass(frozen=True, slots=True)
class Network:
    """What is trained: from `Encoded`'s arrays to the members' outputs [batch, members, outputs]."""

    model: Any
    dense: Any
    """the linear part of the numbers, a Dense layer with the bias"""
    by_category: Any
    by_word: Any

    def set_linear(self, linear: Linear) -> None:
        """Give the linear part what a linear model has found."""
        numbers = self.dense.kernel.shape[0]
        categories = self.by_category.embedding.input_dim if self.by_category else 0
        parts = np.split(linear.weights, [numbers, numbers + categories])
        self.dense.set_weights([parts[0], linear.bias])
        if self.by_category:
            self.by_category.embedding.set_weights([parts[1]])
        if self.by_word:
            self.by_word.embedding.set_weights([parts[2]])


def build_network(
    encoder: Encoder, edges: list[NDArray[np.float64]], outputs: int, members: int, width: int, dropout: float
) -> Network:
    """A network for what `encoder` gives; `edges` are the quantiles of each of its numbers."""
    numbers = keras.Input((encoder.numbers,), name="numbers")
    categories = keras.Input((encoder.category_columns,), name="categories", dtype="int32")
    words = keras.Input((encoder.text_words,), name="words", dtype="int32")
    weights = keras.Input((encoder.text_words,), name="weights")
    dense = keras.layers.Dense(outputs, trainable=False)
    linear, features = [dense(numbers)], []
    by_category = by_word = None
    if encoder.numbers:
        bent = keras.layers.EinsumDense("bfi,fis->bfs", (encoder.numbers, _NUMBER_SIZE), bias_axes="fs")(
            Buckets(edges)(numbers)
        )
        features.append(keras.layers.Flatten()(keras.activations.relu(bent)))
    if encoder.category_columns:
        by_category = SummedEmbedding(encoder.categories, outputs, "zeros")
        by_category.trainable = False
        linear.append(by_category(categories))
        frequent = Renumbered(encoder.frequent)(categories)
        embedded = keras.layers.Embedding(int(encoder.frequent.max()) + 1, _CATEGORY_SIZE)(frequent)
        features.append(keras.layers.Flatten()(embedded))
    if encoder.text_words:
        by_word = SummedEmbedding(encoder.words, outputs, "zeros")
        by_word.trainable = False
        linear.append(by_word(words, weights))
        features.append(SummedEmbedding(encoder.words, _WORD_SIZE, "uniform")(words, weights))
    joined = keras.layers.Concatenate()(features) if len(features) > 1 else features[0]
    hidden = Members(members)(joined)
    for _ in range(2):
        hidden = keras.layers.Dropout(dropout)(keras.layers.Dense(width, "relu")(hidden))
    straight = keras.layers.Add()(linear) if len(linear) > 1 else linear[0]
    output = Heads(outputs)(hidden) + keras.ops.expand_dims(straight, 1)
    inputs = {"numbers": numbers, "categories": categories, "words": words, "weights": weights}
    return Network(keras.Model(inputs, output, name="network"), dense, by_category, by_word)


def quantiles(encoded: Encoded) -> list[NDArray[np.float64]]:
    """Per number the edges of its intervals: quantiles of the rows, each once."""
    found = []
    shares = np.linspace(0, 1, _INTERVALS + 1)
    for column in encoded.numbers.T:
        edges = np.unique(np.quantile(column.astype(np.float64), shares))
        found.append(edges if len(edges) > 1 else np.array([edges[0] - 1, edges[0] + 1]))
    return found
