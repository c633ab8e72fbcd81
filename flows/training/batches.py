"""
Hands rows that are in memory to Keras, batch by batch, without an end.

From arrays Keras makes two iterators of TensorFlow's for each epoch, which take longer than the epoch of a small table,
and a seed makes it take the rows in the same order each time.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

_as_it_is = tf.autograph.experimental.do_not_convert
"""Without a search for branches and loops to translate, of which there are none; it takes a tenth of a second."""


class Batches:
    """Rows as batches: those of an epoch, then those of the next one, in another order where there is a seed."""

    def __init__(self, rows: tuple[Any, ...], batch_size: int, seed: int | None = None) -> None:
        """
        Args:
            rows: Inputs, targets and weights: arrays or tensors [rows, ...], or dicts of such.
            batch_size: Rows of a batch; the last one of an epoch may have fewer.
            seed: Of the orders; in the order as given where there is none.
        """
        tensors = tf.nest.map_structure(_tensor, rows)
        count = len(tf.nest.flatten(tensors)[0])
        self.in_epoch = -(-count // batch_size)
        """batches"""
        orders = tf.data.Dataset.counter().map(_as_it_is(lambda _: _order(count, seed))).prefetch(1)
        begins = tf.data.Dataset.range(0, count, batch_size)
        cut = _as_it_is(lambda order: begins.map(_as_it_is(lambda begin: order[begin : begin + batch_size])))
        rows_of = _as_it_is(lambda numbers: tf.nest.map_structure(lambda each: tf.gather(each, numbers), tensors))
        batches = orders.flat_map(cut).map(rows_of)
        self.dataset = batches.prefetch(tf.data.AUTOTUNE)
        """`tf.data.Dataset`"""


def _tensor(array: Any) -> Any:
    """With numbers of the kind that Keras computes with, as it makes them of arrays itself."""
    tensor = tf.convert_to_tensor(array)
    return tf.cast(tensor, keras.config.floatx()) if tensor.dtype.is_floating else tensor


def _order(count: int, seed: int | None) -> Any:
    numbers = tf.range(count)
    return numbers if seed is None else tf.random.shuffle(numbers, seed=seed)
