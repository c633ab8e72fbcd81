"""A recipe whose data is a stream goes the whole way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

STREAMED = """
import keras
import numpy as np
import tensorflow as tf

from flows.recipes import Recipe, Thresholds

NUMBERS = np.random.default_rng(1).normal(size=(4000, 2)).astype("float32")


def load():
    return tf.data.Dataset.from_tensor_slices((NUMBERS, (NUMBERS.sum(axis=1) > 0).astype("int64")))


def build(examples):
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, activation="softmax")])


RECIPE = Recipe(
    name="streamed", load=load, build=build, class_names=("no", "yes"), epochs=3, learning_rate=0.1,
    thresholds=Thresholds(min_accuracy=0.9),
)
"""


@pytest.mark.slow
def test_a_stream_goes_live(home: Any, tmp_path: Path) -> None:
    """Trained, judged on its held-out rows, recorded and served."""
    (tmp_path / "streamed.py").write_text(STREAMED)
    (trained,) = home.run(("train", "streamed.py"), directory=tmp_path)
    assert (trained["decision"], trained["live"]) == ("passed", True)
    assert trained["metrics"]["test_rows"] == pytest.approx(800, abs=80)
