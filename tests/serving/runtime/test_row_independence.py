"""What is proven to treat each row by itself, and above all what is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.serving.inference.in_memory import servable_of

BATCH = tf.TensorSpec([None, 4], tf.float32)
WORDS = tf.TensorSpec([None, 3], tf.string)
LINES = tf.TensorSpec([None], tf.string)
IDS = tf.TensorSpec([None], tf.int64)
NUMBERS = tf.TensorSpec([None, 3], tf.int64)
SEQUENCE = tf.TensorSpec([None, None, 4], tf.float32)
IMAGES = tf.TensorSpec([None, 8, 8, 2], tf.float32)
WEIGHTS = np.arange(12, dtype=np.float32).reshape(4, 3)
FILTERS = np.ones((3, 3, 2, 5), np.float32)


def obstacle(function: Callable[..., Any], *specs: Any) -> str | None:
    """The kind of operation that stands in the way of running requests together."""
    servable = servable_of(function, *specs)
    found = servable.obstacle(servable.signatures["serving_default"])
    servable.close()
    return None if found is None else found.operation


def asserted(x: Any) -> Any:
    tf.debugging.assert_greater(x, -1.0)
    return x + 1.0


def asserted_by_hand(x: Any) -> Any:
    with tf.control_dependencies([tf.Assert(tf.reduce_all(x > -1.0), [tf.reduce_mean(x)])]):
        return tf.identity(x)


def asserted_of_the_mean(x: Any) -> Any:
    with tf.control_dependencies([tf.Assert(tf.reduce_mean(x) > -1.0, [x])]):
        return tf.identity(x)


def asserted_of_any(x: Any) -> Any:
    with tf.control_dependencies([tf.Assert(tf.reduce_any(x > 0.0), [x])]):
        return tf.identity(x)


def asserted_size(x: Any) -> Any:
    with tf.control_dependencies([tf.debugging.assert_equal(tf.shape(x)[0], 1)]):
        return tf.identity(x)


def printed(x: Any) -> Any:
    tf.print(x)
    return x + 1.0


def over_time(x: Any) -> Any:
    """A running sum over the second dimension, by a loop."""
    steps = tf.transpose(x, [1, 0, 2])
    sums = tf.scan(lambda state, step: state + step, steps, tf.zeros_like(steps[0]))
    return tf.transpose(sums, [1, 0, 2])


def attention(x: Any) -> Any:
    scores = tf.nn.softmax(tf.matmul(x, x, transpose_b=True))
    return tf.einsum("bts,bsd->btd", scores, x)


def dead_end(x: Any) -> dict[str, Any]:
    return {"kept": x * 2.0, "mean": tf.reduce_mean(x, axis=0, keepdims=True)}


def flattened(x: Any) -> Any:
    """A dense layer over the last of three dimensions."""
    return tf.reshape(tf.matmul(tf.reshape(x, [-1, 4]), WEIGHTS), [-1, tf.shape(x)[1], 3])


def convolved(x: Any) -> Any:
    return tf.reduce_mean(tf.nn.max_pool2d(tf.nn.conv2d(x, FILTERS, 2, "SAME"), 2, 2, "VALID"), axis=[1, 2])


def trained_norm(x: Any) -> Any:
    return tf.compat.v1.nn.fused_batch_norm(x, np.ones(2, np.float32), np.zeros(2, np.float32))[0]


def summed_up(x: Any) -> Any:
    return tf.while_loop(lambda a: tf.reduce_sum(a) < 9.0, lambda a: (a + 1.0,), [x])[0]


def segments(x: Any) -> Any:
    return tf.math.unsorted_segment_sum(x, tf.cast(x[:, 0], tf.int32), 3)


def quantised(x: Any) -> Any:
    return tf.quantization.quantize_and_dequantize_v2(x, 0.0, 1.0, range_given=False)


def random_rows(x: Any) -> Any:
    return x + tf.random.stateless_normal(tf.shape(x), [1, 2])


def listed(x: Any) -> Any:
    """A list that takes batches of sixteen rows alone."""
    items = tf.raw_ops.TensorListReserve(element_shape=[16, 4], num_elements=2, element_dtype=tf.float32)
    items = tf.raw_ops.TensorListSetItem(input_handle=items, index=0, item=x)
    return tf.raw_ops.TensorListGetItem(input_handle=items, index=0, element_shape=[-1, 4], element_dtype=tf.float32)


def weighted(n: Any) -> Any:
    numbers = tf.cast(n, tf.int32)
    return tf.raw_ops.DenseBincount(input=numbers, size=3, weights=np.ones((16, 3), np.float32))


def in_python(x: Any) -> Any:
    return tf.ensure_shape(tf.py_function(lambda y: y, [x], tf.float32), [None, 4])


INDEPENDENT: dict[str, tuple[Any, ...]] = {
    "dense": (lambda x: tf.nn.softmax(tf.nn.bias_add(tf.matmul(x, WEIGHTS), [1.0, 2.0, 3.0])), BATCH),
    "elementwise, the shorter is spread": (lambda x: (x - [[1.0, 2.0, 3.0, 4.0]]) / 2.0 * x[:, :1], BATCH),
    "two inputs": (lambda x, y: tf.concat([x, tf.tanh(y)], axis=1), BATCH, BATCH),
    "sums over features": (lambda x: tf.reduce_sum(x, axis=[-1]), BATCH),
    "best of the features": (lambda x: (tf.argmax(x, axis=-1), tf.math.top_k(x, 2).values), BATCH),
    "running sum over features": (lambda x: tf.cumsum(x, axis=1, reverse=True), BATCH),
    "sorted features": (lambda x: tf.sort(x, axis=-1), BATCH),
    "flattened and back": (flattened, SEQUENCE),
    "batch asked and given back": (lambda x: tf.reshape(x, [tf.shape(x)[0], 2, 2]), BATCH),
    "transposed and back": (lambda x: tf.transpose(tf.matmul(WEIGHTS, x, transpose_a=True, transpose_b=True)), BATCH),
    "time first and back": (lambda x: tf.transpose(tf.transpose(x, [1, 0, 2]) + 1.0, [1, 0, 2]), SEQUENCE),
    "zeros for each row": (lambda x: x + tf.zeros([tf.shape(x)[0], 4]), BATCH),
    "the same for each row": (lambda x: tf.concat([x, tf.tile([[1.0, 2.0]], [tf.shape(x)[0], 1])], axis=1), BATCH),
    "chosen by element": (lambda x: tf.where(x > 0.0, x, [0.5]), BATCH),
    "picture": (convolved, IMAGES),
    "dilated": (lambda x: tf.nn.atrous_conv2d(x, FILTERS, 2, "SAME"), IMAGES),
    "embedding": (lambda n: tf.reduce_mean(tf.gather(WEIGHTS, n), axis=1), NUMBERS),
    "one of many": (lambda n: tf.reduce_max(tf.one_hot(n, 5), axis=1), NUMBERS),
    "counts in each row": (lambda n: tf.math.bincount(n, minlength=5, maxlength=5, axis=-1), NUMBERS),
    "words": (lambda w: tf.strings.to_hash_bucket_fast(tf.strings.lower(w), 7), WORDS),
    "attention within a row": (attention, SEQUENCE),
    "a loop over time": (over_time, SEQUENCE),
    "a branch on what is fixed": (lambda x: tf.cond(tf.shape(x)[1] > 2, lambda: x * 2.0, lambda: x), SEQUENCE),
    "a shape that is ensured": (lambda x: tf.ensure_shape(x, [None, 4]), BATCH),
    "pixels of depth": (lambda x: tf.nn.space_to_depth(tf.nn.depth_to_space(tf.tile(x, [1, 1, 1, 2]), 2), 2), IMAGES),
    "joined words": (lambda w: tf.strings.join([w, "a"]), WORDS),
    "an assertion about every element": (asserted, BATCH),
    "an assertion by hand": (asserted_by_hand, BATCH),
}  # fmt: skip
COUPLED: dict[str, tuple[Any, ...]] = {
    "softmax over the batch": ("Softmax", lambda x: tf.nn.softmax(x, axis=0), BATCH),
    "mean over the batch": ("Mean", lambda x: x - tf.reduce_mean(x, axis=0), BATCH),
    "mean over all": ("Mean", lambda x: x / tf.reduce_mean(x), BATCH),
    "length over the batch": ("Sum", lambda x: tf.math.l2_normalize(x, axis=0), BATCH),
    "least and greatest of all": ("Min", lambda x: (x - tf.reduce_min(x)) / tf.reduce_max(x), BATCH),
    "training batch norm": ("FusedBatchNormV3", trained_norm, IMAGES),
    "running sum over the batch": ("Cumsum", lambda x: tf.cumsum(x), BATCH),
    "scan over the batch": ("TensorListFromTensor", lambda x: tf.scan(lambda a, b: a + b, x), BATCH),
    "map over the batch": ("TensorListReserve", lambda x: tf.map_fn(lambda row: row * 2.0, x), BATCH),
    "branch on a sum": ("Sum", lambda x: tf.cond(tf.reduce_sum(x) > 0.0, lambda: x, lambda: -x), BATCH),
    "loop until a sum": ("Sum", summed_up, BATCH),
    "unique": ("Unique", lambda n: tf.unique(tf.reshape(n, [-1]))[1], IDS),
    "mask": ("Where", lambda x: tf.boolean_mask(x, x[:, 0] > 0.0), BATCH),
    "rows that are not zero": ("Where", lambda x: tf.where(x > 0.0), BATCH),
    "sorted rows": ("TopKV2", lambda x: tf.sort(x, axis=0), BATCH),
    "best of the rows": ("ArgMax", lambda x: x + tf.cast(tf.argmax(x, axis=0), tf.float32), BATCH),
    "reversed rows": ("ReverseV2", lambda x: tf.reverse(x, [0]), BATCH),
    "rolled rows": ("Roll", lambda x: tf.roll(x, 1, axis=0), BATCH),
    "the first row": ("StridedSlice", lambda x: x + x[0], BATCH),
    "all but the last row": ("StridedSlice", lambda x: x[:-1], BATCH),
    "every second row": ("StridedSlice", lambda x: x[::2], BATCH),
    "features up to the batch": ("StridedSlice", lambda x: x[:, : tf.shape(x)[0]], BATCH),
    "gathered rows": ("GatherV2", lambda x: tf.gather(x, [0]), BATCH),
    "every row with every other": ("MatMul", lambda x: tf.matmul(x, x, transpose_b=True), BATCH),
    "contracted batch": ("MatMul", lambda x: tf.matmul(x, x, transpose_a=True), BATCH),
    "einsum over the batch": ("Einsum", lambda x: tf.einsum("bi,bj->ij", x, x), BATCH),
    "every pair": ("Sub", lambda x: x[:, None, :] - x[None, :, :], BATCH),
    "divided by the number of rows": ("Cast", lambda x: x / tf.cast(tf.shape(x)[0], tf.float32), BATCH),
    "number of the row": ("Range", lambda x: x + tf.cast(tf.range(tf.shape(x)[0]), tf.float32)[:, None], BATCH),
    "constant for sixteen rows": ("AddV2", lambda x: x + tf.ones([16, 4]), BATCH),
    "constant of sixteen for the batch": ("EnsureShape", lambda x: tf.ensure_shape(x, [16, 4]), BATCH),
    "reshaped to sixteen rows": ("Reshape", lambda x: tf.reshape(x, [16, -1]), BATCH),
    "flat": ("Reshape", lambda x: tf.reshape(tf.reshape(x, [-1]), [4, -1]), BATCH),
    "regrouped": ("Reshape", lambda x: tf.reshape(x, [-1, 8]), BATCH),
    "mixed up": ("Reshape", lambda x: tf.reshape(tf.transpose(x), [-1, 4]), BATCH),
    "batch of one squeezed": ("Squeeze", lambda x: tf.squeeze(x), BATCH),
    "whole rows twice": ("Tile", lambda x: tf.tile(x, [2, 1]), BATCH),
    "rows and more": ("ConcatV2", lambda x: tf.concat([x, tf.zeros([1, 4])], axis=0), BATCH),
    "padded rows": ("Pad", lambda x: tf.pad(x, [[1, 0], [0, 0]]), BATCH),
    "segments": ("UnsortedSegmentSum", segments, BATCH),
    "as many counts as the greatest": ("Greater", lambda n: tf.math.bincount(n, axis=-1), NUMBERS),
    "a list of batches of sixteen": ("TensorListSetItem", listed, BATCH),
    "weights of sixteen rows": ("DenseBincount", weighted, NUMBERS),
    "words of any number": ("StringSplitV2", lambda w: tf.strings.split(w).to_tensor(), LINES),
    "random": ("RandomUniform", lambda x: x + tf.random.uniform([4]), BATCH),
    "fixed, of no known shape": ("AddV2", lambda x: x + tf.random.stateless_normal([4], [1, 2]), BATCH),
    "random for each row": ("StatelessRandomNormalV2", random_rows, BATCH),
    "dropout": ("RandomUniform", lambda x: tf.nn.dropout(x, 0.5), BATCH),
    "quantised by all": ("QuantizeAndDequantizeV4", quantised, BATCH),
    "printed": ("StringFormat", printed, BATCH),
    "Python": ("EagerPyFunc", in_python, BATCH),
    "an assertion about the mean": ("Mean", asserted_of_the_mean, BATCH),
    "an assertion about any": ("Any", asserted_of_any, BATCH),
    "an assertion about the batch": ("Equal", asserted_size, BATCH),
    "one for all": ("Mean", lambda x: tf.reduce_mean(x, axis=0), BATCH),
    "the number of rows": ("output", lambda x: tf.shape(x), BATCH),
    "what is fixed": ("output", lambda x: tf.ones([4]), BATCH),
    "time first": ("output", lambda x: tf.transpose(x, [1, 0, 2]), SEQUENCE),
    "a batch of one size": ("input", lambda x: x + 1.0, tf.TensorSpec([8, 4], tf.float32)),
    "any shape": ("input", lambda x: x + 1.0, tf.TensorSpec(None, tf.float32)),
    "a scalar beside": ("input", lambda x, y: x * y, BATCH, tf.TensorSpec([], tf.float32)),
}  # fmt: skip


@pytest.mark.parametrize("name", INDEPENDENT)
def test_what_treats_each_row_by_itself_is_proven(name: str) -> None:
    """Nothing stands in the way of running requests together."""
    function, *specs = INDEPENDENT[name]
    assert obstacle(function, *specs) is None


@pytest.mark.parametrize("name", COUPLED)
def test_what_couples_rows_is_named(name: str) -> None:
    """The operation that couples rows, or may do so, is the one that is named."""
    operation, function, *specs = COUPLED[name]
    assert obstacle(function, *specs) == operation


def test_each_set_of_outputs_is_judged_by_itself() -> None:
    """An output that couples rows does not stand in the way of one that does not, where it cannot fail."""
    servable = servable_of(dead_end, BATCH)
    signature = servable.signatures["serving_default"]
    found = [servable.obstacle(signature, outputs) for outputs in (["y0"], ["y1"], ["y0", "y1"])]
    assert [each and each.operation for each in found] == [None, "Mean", "Mean"]
    servable.close()
