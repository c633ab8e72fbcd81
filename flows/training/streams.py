"""
Data that does not fit into memory: a `tf.data.Dataset` whose elements are one row's inputs and its target.

It is read once to check it and to decide which rows are held out. These are then in memory, with some of the others to
build the model by; the training reads the stream again in each epoch and passes over the rows that are held out. The
side of a row is decided by its content each time it is read, so the stream may come in any order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from flows.data.ids import row_ids
from flows.data.rows import ONLY_INPUT, Inputs, Rows, bare
from flows.data.split import ByTime, HeldOut, InvalidSplit
from flows.recipes import Recipe, task_of
from flows.tasks import Classification, Regression
from flows.training.dataset import Dataset, UnusableData, check_inputs, dataset_of, load_rows, named_arrays
from flows.user_code import of_recipe

_READ_ROWS = 1024
_SAMPLE_ROWS = 10_000
_SHUFFLED_ROWS = 10_000


@dataclass(frozen=True, slots=True, eq=False)
class Stream:
    """The training rows of a stream."""

    rows: Any
    """`tf.data.Dataset` of batches of `_READ_ROWS`, the held-out rows among them"""
    recipe: Recipe
    ids: NDArray[np.uint64]
    """uint64 [training rows], sorted"""

    def batches(self, batch_size: int, seed: int) -> Any:
        """`tf.data.Dataset` of inputs and targets, without what is held out, in another order each epoch."""
        without = tf.autograph.experimental.do_not_convert(self._without_held_out)
        kept = self.rows.map(without, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        mixed = kept.unbatch().shuffle(_SHUFFLED_ROWS, seed=seed)
        steps = -(-len(self.ids) // batch_size)
        counted = mixed.batch(batch_size).apply(tf.data.experimental.assert_cardinality(steps))
        return counted.prefetch(tf.data.AUTOTUNE)

    def _without_held_out(self, inputs: Any, targets: Any) -> tuple[Any, Any]:
        named = inputs if isinstance(inputs, Mapping) else {ONLY_INPUT: inputs}

        def is_trained_on(*arrays: NDArray[Any]) -> NDArray[np.bool_]:
            found = _arrays(dict(zip(named, arrays, strict=True)), self.recipe)
            return ~self.recipe.split.held_out(Rows(found, arrays[0], row_ids(found)))

        mask = tf.ensure_shape(tf.numpy_function(is_trained_on, list(named.values()), tf.bool), [None])
        dtype = tf.int64 if isinstance(task_of(self.recipe), Classification) else tf.float32
        taken = {name: tf.boolean_mask(each, mask) for name, each in named.items()}
        return bare(taken), tf.cast(tf.boolean_mask(targets, mask), dtype)


def streamed(recipe: Recipe, stream: Any) -> Dataset:
    """
    The data set of a stream.

    Raises:
        RecipeFailed: Reading it fails.
        UnusableData: It has no rows, or some that cannot be used.
        InvalidSplit: It cannot be split as the recipe says.
    """
    if isinstance(recipe.split, ByTime):
        raise InvalidSplit(f"The stream of {recipe.name!r} is split by content, by group or by rows of one's own")
    batched = stream.batch(_READ_ROWS)
    with of_recipe(f"The data of {recipe.name!r} cannot be read"):
        found = _Read(recipe)
        for inputs, targets in batched.as_numpy_iterator():
            found.add(_arrays(inputs, recipe), np.asarray(targets))
    if not found.targets:
        raise UnusableData(f"The data of {recipe.name!r} has no rows: check what its load() returns")
    task, all_targets = task_of(recipe), np.concatenate(found.targets)
    task.targets(all_targets, recipe.name)
    test = load_rows(recipe, recipe.split.load) if isinstance(recipe.split, HeldOut) else _joined(found.test, recipe)
    sample, ids = _joined(found.sample, recipe), np.sort(np.concatenate(found.ids))
    dataset = dataset_of(sample, test, recipe.feature_names or tuple(sample.inputs), task)
    digest = hashlib.sha256(dataset.digest.encode() + ids.tobytes() + all_targets.tobytes()).hexdigest()
    return replace(dataset, digest=digest, stream=Stream(batched, recipe, ids))


class _Read:
    """What is kept of a stream when it is read for the first time."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe, self._sampled = recipe, 0
        self.test: list[Rows] = []
        self.sample: list[Rows] = []
        self.ids: list[NDArray[np.uint64]] = []
        self.targets: list[NDArray[Any]] = []

    def add(self, inputs: Inputs, targets: NDArray[Any]) -> None:
        rows = Rows(check_inputs(inputs, targets, {}, self._recipe), targets, row_ids(inputs))
        held_out = self._recipe.split.held_out(rows)
        trained_on = rows.take(~held_out)
        self.targets.append(targets)
        self.ids.append(trained_on.ids)
        self.test.append(rows.take(held_out))
        if self._sampled < _SAMPLE_ROWS:
            self.sample.append(trained_on)
            self._sampled += len(trained_on)


def _joined(parts: list[Rows], recipe: Recipe) -> Rows:
    """
    Raises:
        UnusableData: There are no rows.
    """
    names = parts[0].inputs
    inputs = {name: np.concatenate([part.inputs[name] for part in parts]) for name in names}
    targets = np.concatenate([part.targets for part in parts])
    if not len(targets):
        raise UnusableData(f"The data of {recipe.name!r} leaves no rows on one side: give it more rows")
    dtype = np.int64 if isinstance(task_of(recipe), Classification) else np.float64
    values = targets.astype(dtype)
    if isinstance(task_of(recipe), Regression) and values.ndim == 1:
        values = values[:, None]
    return Rows(inputs, values, np.concatenate([part.ids for part in parts]))


def _arrays(inputs: Any, recipe: Recipe) -> dict[str, NDArray[Any]]:
    """Arrays by name, as those of data in memory; texts are bytes in a stream."""
    named = inputs if isinstance(inputs, Mapping) else {ONLY_INPUT: inputs}
    return named_arrays({name: _decoded(np.asarray(each)) for name, each in named.items()}, recipe.name)


def _decoded(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype != object:
        return array
    texts = [each.decode("utf-8", "replace") for each in array.ravel()]
    return np.array([*texts, ""], object)[:-1].reshape(array.shape)
