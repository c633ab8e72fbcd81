"""From raw columns to what a network computes with: numbers, the categories' numbers, and the words of texts."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from numpy.typing import NDArray
from sklearn.feature_extraction.text import CountVectorizer

from flows.data.rows import Inputs, count
from flows.tables.columns import Column, Kind
from flows.tables.layers import DateFeatures, Standardised, Stripped, TokenWeights

_MAX_CATEGORIES = 20_000
_MIN_EMBEDDED, _EMBEDDED_SHARE = 10, 2000
"""a category is embedded from so many rows on, and from this part of all rows: of fewer the linear part knows enough"""
_MAX_WORDS = 10_000
_MAX_TEXT_WORDS = 96
_CHUNK_ROWS = 1 << 15


@dataclass(frozen=True, slots=True)
class Encoder:
    """The preprocessing as a Keras model, from each input by its name to `Encoded`'s arrays by theirs."""

    model: Any
    numbers: int
    categories: int
    """entries of the one table of all columns of categories"""
    frequent: NDArray[np.int32]
    """for each of them its number among those that are frequent enough to be embedded; 0 for the others"""
    category_columns: int
    words: int
    """entries of the one table of all texts' words"""
    text_words: int
    """words of a row that are looked at, all texts together"""


@dataclass(frozen=True, slots=True)
class Encoded:
    """Rows after preprocessing."""

    numbers: NDArray[np.float32]
    """[rows, numbers]"""
    categories: NDArray[np.int32]
    """[rows, columns]"""
    words: NDArray[np.int32]
    """[rows, words]"""
    weights: NDArray[np.float32]
    """[rows, words]"""

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, rows: NDArray[Any]) -> Encoded:
        return Encoded(self.numbers[rows], self.categories[rows], self.words[rows], self.weights[rows])

    @property
    def inputs(self) -> dict[str, NDArray[Any]]:
        return {
            "numbers": self.numbers,
            "categories": self.categories,
            "words": self.words,
            "weights": self.weights,
        }


def build_encoder(columns: Sequence[Column], inputs: Inputs) -> Encoder:
    """The preprocessing for these columns, with what these training rows say: medians, words, quantiles."""
    taken = {
        column.input: keras.Input((), name=column.input, dtype="float32" if column.is_numeric else "string")
        for column in columns
    }
    numbers = _numbers(columns, inputs, taken)
    categories, frequent = _categories(columns, inputs, taken)
    words, weights, vocabulary = _texts(columns, inputs, taken)
    model = keras.Model(
        taken, {"numbers": numbers, "categories": categories, "words": words, "weights": weights}, name="encoder"
    )
    columns_of_categories = categories.shape[1]
    return Encoder(model, numbers.shape[1], len(frequent), frequent, columns_of_categories, vocabulary, words.shape[1])


def encode(encoder: Any, inputs: Inputs) -> Encoded:
    """Run the preprocessing over rows, by parts, so that memory does not grow with them."""
    parts: list[dict[str, NDArray[Any]]] = []
    run = tf.function(lambda chunk: encoder(chunk, training=False), autograph=False, reduce_retracing=True)
    for at in range(0, count(inputs), _CHUNK_ROWS):
        chunk = {name: tf.constant(values[at : at + _CHUNK_ROWS]) for name, values in inputs.items()}
        parts.append({name: found.numpy() for name, found in run(chunk).items()})
    return Encoded(**{name: np.concatenate([part[name] for part in parts]) for name in parts[0]})


def _numbers(columns: Sequence[Column], inputs: Inputs, taken: Mapping[str, Any]) -> Any:
    """[batch, numbers]: numbers and what dates are made of, standardised."""
    found, seen = [], []
    numeric = [column.input for column in columns if column.kind is Kind.NUMBER]
    if numeric:
        found.append(_Stacked()([taken[name] for name in numeric]))
        seen.append(np.stack([inputs[name] for name in numeric], axis=1))
    for column in columns:
        if column.kind is Kind.DATE:
            layer = DateFeatures(column.date_format, _has_times(inputs[column.input]))
            found.append(layer(taken[column.input]))
            seen.append(layer(tf.constant(inputs[column.input])).numpy())
    if not found:
        return _Zeros(1, "float32")(_any(taken))  # oneDNN ends the process at a product over no columns
    joined = keras.layers.Concatenate()(found) if len(found) > 1 else found[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of columns without any value
        return Standardised(np.concatenate(seen, axis=1))(joined)


def _has_times(texts: NDArray[Any]) -> bool:
    return any(":" in text for text in texts[:10_000])


def _categories(columns: Sequence[Column], inputs: Inputs, taken: Mapping[str, Any]) -> tuple[Any, NDArray[np.int32]]:
    """
    int32 [batch, columns], each column's numbers after those of the columns before, and `Encoder.frequent`.

    A column's first is "missing", its second "not seen in training".
    """
    found: list[Any] = []
    are_frequent: list[bool] = []
    least = max(_MIN_EMBEDDED, count(inputs) // _EMBEDDED_SHARE)
    for column in columns:
        if column.kind not in (Kind.CATEGORY, Kind.BOOLEAN):
            continue
        is_boolean = column.kind is Kind.BOOLEAN
        counts = _counts(inputs[column.input], is_boolean)
        vocabulary = [str(word) for word in counts.index] or ["?"]
        lookup = keras.layers.StringLookup(vocabulary=vocabulary, mask_token="", num_oov_indices=1)
        found.append(_Offset(len(are_frequent))(lookup(Stripped(is_boolean)(taken[column.input]))))
        are_frequent += [True, False, *(counts >= least), *([] if len(counts) else [False])]
    if not found:
        return _Zeros(0, "int32")(_any(taken)), np.zeros(0, np.int32)
    return _Stacked()(found), np.where(are_frequent, np.cumsum(are_frequent), 0).astype(np.int32)


def _counts(texts: NDArray[Any], lower: bool) -> pd.Series:
    """The words of a column, most frequent first."""
    values = pd.Series(texts, dtype="str").str.strip()
    counts = (values.str.lower() if lower else values).value_counts()
    return counts[counts.index != ""].iloc[:_MAX_CATEGORIES]


def _texts(columns: Sequence[Column], inputs: Inputs, taken: Mapping[str, Any]) -> tuple[Any, Any, int]:
    """The words' numbers int32 [batch, words], their weights float32 [batch, words], and how many words are known."""
    found, weights, offset = [], [], 0
    for column in columns:
        if column.kind is not Kind.TEXT:
            continue
        vocabulary, inverse_frequencies, length = _words(inputs[column.input])
        layer = keras.layers.TextVectorization(vocabulary=vocabulary, output_sequence_length=length)
        tokens = layer(taken[column.input])
        weights.append(TokenWeights(inverse_frequencies)(tokens))
        found.append(_Offset(offset)(tokens))
        offset += len(vocabulary) + 2
    if not found:
        return _Zeros(0, "int32")(_any(taken)), _Zeros(0, "float32")(_any(taken)), 0
    if len(found) == 1:
        return found[0], weights[0], offset
    return keras.layers.Concatenate()(found), keras.layers.Concatenate()(weights), offset


def _words(texts: NDArray[Any]) -> tuple[list[str], NDArray[np.float32], int]:
    """Words, their inverse frequencies after those of "no word" and "unknown", and how many of a row are looked at."""
    values = pd.Series(texts, dtype="str").str.lower().str.replace(_PUNCTUATION, "", regex=True)
    counted = CountVectorizer(lowercase=False, token_pattern=r"\S+", max_features=_MAX_WORDS)
    length = int(np.quantile(values.str.count(r"\S+"), 0.98))
    try:
        counts = counted.fit_transform(values)
    except ValueError:  # no word is there
        return ["?"], np.zeros(3, np.float32), 1
    frequencies = np.asarray((counts > 0).sum(axis=0)).ravel()

    def rarity(frequency: Any) -> Any:
        return np.log((1 + len(values)) / (1 + frequency)) + 1

    words = [str(word) for word in counted.get_feature_names_out()]
    return words, np.array([0, rarity(1), *rarity(frequencies)], np.float32), min(max(length, 4), _MAX_TEXT_WORDS)


_PUNCTUATION = r"[!\"#$%&()\*\+,-\./:;<=>?@\[\\\]^_`{|}~\']"
"""what TextVectorization takes out"""


class _Stacked(keras.layers.Layer):  # type: ignore[misc]
    def call(self, columns: Sequence[Any]) -> Any:
        return tf.stack(columns, axis=1)


class _Zeros(keras.layers.Layer):  # type: ignore[misc]
    """As many zeros a row, for what a table has not."""

    def __init__(self, size: int, dtype: str) -> None:
        super().__init__(dtype=dtype)
        self.size = size

    def call(self, column: Any) -> Any:
        return tf.zeros_like(tf.expand_dims(column, 1), self.dtype)[:, : self.size]


class _Offset(keras.layers.Layer):  # type: ignore[misc]
    def __init__(self, offset: int) -> None:
        super().__init__()
        self.offset = offset

    def call(self, numbers: Any) -> Any:
        return tf.cast(numbers, tf.int32) + self.offset


def _any(taken: Mapping[str, Any]) -> Any:
    return next(iter(taken.values()))
