"""Whether a flat is let within a week: a small table of numbers, words, a date and gaps, generated from a formula."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flows.recipes import Recipe, Thresholds

if TYPE_CHECKING:
    import keras

_ROWS = 800
_DISTRICTS = ("harbour", "old town", "hill", "station", "park")
_HEATINGS = ("gas", "heat pump", "district", "")


def load() -> tuple[dict[str, NDArray[Any]], NDArray[Any]]:
    """
    800 rows by column, and whether each was let within a week.

    ``area`` float32 square metres, ``rent`` float32 a month, NaN where nobody wrote it down; ``rooms`` int64;
    ``district`` and ``heating`` texts, "" where nobody wrote it down.
    """
    random = np.random.default_rng(7)
    rooms = random.integers(1, 6, _ROWS)
    area = rooms * 22 + random.normal(10, 8, _ROWS)
    district = random.integers(0, len(_DISTRICTS), _ROWS)
    rent = area * (9 + district) * random.lognormal(0, 0.15, _ROWS)
    is_bargain = (9 + district) * area / rent - 1 + 0.05 * (district == 4)
    let = random.random(_ROWS) < 1 / (1 + np.exp(-30 * is_bargain))
    gaps = random.random((2, _ROWS)) < 0.05
    columns: dict[str, NDArray[Any]] = {
        "area": np.where(gaps[0], np.nan, area).astype(np.float32),
        "rent": np.where(gaps[1], np.nan, rent).astype(np.float32),
        "rooms": rooms.astype(np.int64),
        "district": np.array(_DISTRICTS, object)[district],
        "heating": np.array(_HEATINGS, object)[random.integers(0, len(_HEATINGS), _ROWS)],
    }
    return columns, let.astype(np.int64)


def build(examples: dict[str, NDArray[Any]]) -> keras.Model:
    """A dense network; numbers are normalised, a missing one is the mean and is told so, words are looked up."""
    import keras

    inputs, encoded = {}, []
    for name, values in examples.items():
        dtype = "string" if values.dtype == object else str(values.dtype)
        inputs[name] = keras.Input((), dtype=dtype, name=name)
        encoded.append(_words(values, inputs[name]) if dtype == "string" else _number(values, inputs[name]))
    hidden = keras.layers.Dense(32, activation="relu")(keras.layers.Concatenate()(encoded))
    return keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(hidden))


def _words(values: NDArray[Any], column: Any) -> Any:
    """[batch, words]: which word it is; one that training did not have is a word of its own."""
    import keras

    return keras.layers.StringLookup(vocabulary=sorted(set(values) - {""}), output_mode="one_hot")(column)


def _number(values: NDArray[Any], column: Any) -> Any:
    """[batch, 2]: the normalised number, and whether it is missing."""
    import keras
    from keras import ops

    normal = (ops.cast(column, "float32") - float(np.nanmean(values))) / float(np.nanstd(values))
    missing = ops.isnan(normal)
    parts = [ops.where(missing, 0.0, normal), ops.cast(missing, "float32")]
    return keras.layers.Concatenate()([ops.expand_dims(part, 1) for part in parts])


RECIPE = Recipe(
    name="rentals",
    load=load,
    build=build,
    class_names=("still free", "let"),
    missing_values=True,
    epochs=12,
    batch_size=32,
    learning_rate=0.005,
    thresholds=Thresholds(at_least={"roc_auc": 0.85}, margin=0.08, slice_columns=("district",)),
)
