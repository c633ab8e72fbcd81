"""Data that is read as a stream."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from flows.data.ids import row_ids
from flows.data.split import ByTime, HeldOut, InvalidSplit
from flows.recipes import Recipe
from flows.tasks import Regression, UnusableTargets
from flows.training.course import training_of
from flows.training.dataset import UnusableData, load_dataset
from flows.training.export import export
from flows.training.fit import fit
from flows.training.seen_rows import rows_seen
from flows.user_code import RecipeFailed
from tests.processes import finish, start

NUMBERS = np.random.default_rng(2).normal(size=(5000, 3)).astype(np.float32)
WORDS = np.array(["up", "down"] * 2500)
CLASSES = (NUMBERS.sum(axis=1) > 0).astype(np.int64)


def build(examples: Any) -> keras.Model:
    inputs = {"numbers": keras.Input((3,), name="numbers"), "word": keras.Input((), dtype="string", name="word")}
    word = keras.layers.StringLookup(vocabulary=["up", "down"], output_mode="one_hot")(inputs["word"])
    joined = keras.layers.Concatenate()([inputs["numbers"], word])
    return keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(joined))


def stream() -> Any:
    return tf.data.Dataset.from_tensor_slices(({"numbers": NUMBERS, "word": WORDS}, CLASSES))


BASE = Recipe(name="own", load=stream, build=build, class_names=("no", "yes"), epochs=2, batch_size=64)


def test_a_stream_is_split_as_the_same_rows_in_memory() -> None:
    """Row for row; only the held-out rows and some of the others are kept."""
    whole = load_dataset(replace(BASE, load=lambda: ({"numbers": NUMBERS, "word": WORDS}, CLASSES)))
    found = load_dataset(BASE)
    np.testing.assert_array_equal(found.test.ids, whole.test.ids)
    np.testing.assert_array_equal(found.training_ids, whole.training_ids)
    np.testing.assert_array_equal(found.test.targets, whole.test.targets)


def test_no_epoch_has_a_held_out_row() -> None:
    """Even when the rows come in another order each time; every other row comes once an epoch."""
    found = load_dataset(replace(BASE, load=lambda: stream().shuffle(5000)))
    batches = training_of(BASE, found, 1, 1, []).arguments["x"]
    for _ in range(2):
        read = [
            row_ids({"numbers": inputs["numbers"], "word": inputs["word"].astype(str).astype(object)})
            for inputs, _ in batches.as_numpy_iterator()
        ]
        np.testing.assert_array_equal(np.sort(np.concatenate(read)), found.training_ids)
    assert not np.isin(found.test.ids, found.training_ids).any()


def test_a_model_learns_from_a_stream(tmp_path: Path) -> None:
    """It is trained, exported, and knows what it has seen."""
    recipe = replace(BASE, learning_rate=0.05, epochs=3)
    dataset = load_dataset(recipe)
    found = fit(recipe, dataset, 1, 3, lambda epoch, metrics: None)
    assert found.history["accuracy"][-1] > 0.9
    export(found.model, dataset, "own", tmp_path / "model")
    seen = rows_seen(tmp_path / "model", dataset.train)
    assert seen is not None
    assert seen.all()


def train(directory: Path) -> None:
    """As far as the exported files, and die."""
    os.environ["TMPDIR"], tempfile.tempdir = str(directory / "temporary"), None
    dataset = load_dataset(BASE)
    fitted = fit(BASE, dataset, 1, 1, lambda epoch, metrics: None)
    assert list(Path(tempfile.gettempdir()).iterdir()) == []
    export(fitted.model, dataset, "own", directory / "model")
    os._exit(9)


def test_a_training_that_dies_leaves_nothing_in_the_temporary_directory(tmp_path: Path) -> None:
    """Not even code of AutoGraph, which would remove it at the end of the process."""
    (temporary := tmp_path / "temporary").mkdir()
    assert finish(start(train, tmp_path)) == 9
    assert (tmp_path / "model" / "saved_model.pb").exists()
    assert list(temporary.iterdir()) == []


def test_a_stream_of_values_and_rows_of_ones_own() -> None:
    """A regression is streamed too, and rows of one's own are held out."""
    values = tf.data.Dataset.from_tensor_slices((NUMBERS, NUMBERS.sum(axis=1)))
    recipe = replace(
        BASE,
        load=lambda: values,
        build=lambda examples: keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)]),
        task=Regression(("sum",)),
        split=HeldOut(lambda: (NUMBERS[:50] + 100, NUMBERS[:50].sum(axis=1))),
    )
    dataset = load_dataset(recipe)
    assert (len(dataset.training_ids), len(dataset.test)) == (5000, 50)
    assert fit(recipe, dataset, 1, 1, lambda epoch, metrics: None).history["loss"]


def test_what_a_stream_cannot_do_is_told() -> None:
    """One sentence each: a split by time, weights, no rows, bad targets, and a bug in what makes it."""

    def broken() -> Any:
        raise KeyError("no such file")
        yield

    spec = (tf.TensorSpec([3]), tf.TensorSpec([], tf.int64))
    with pytest.raises(InvalidSplit, match="by content, by group"):
        load_dataset(replace(BASE, split=ByTime("word")))
    with pytest.raises(UnusableData, match="neither weights"):
        training_of(replace(BASE, class_weight={"no": 2.0}), load_dataset(BASE), 1, 1, [])
    with pytest.raises(UnusableData, match="no rows"):
        load_dataset(replace(BASE, load=lambda: stream().take(0)))
    with pytest.raises(UnusableTargets, match="integers from 0 to 1"):
        load_dataset(replace(BASE, load=lambda: stream().map(lambda inputs, number: (inputs, number + 1))))
    with pytest.raises(RecipeFailed, match="KeyError"):
        load_dataset(replace(BASE, load=lambda: tf.data.Dataset.from_generator(broken, output_signature=spec)))
