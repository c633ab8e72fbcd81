"""
Random small graphs, of layers and of operations that couple the rows of a batch.

Each step takes the tensors made so far and makes one more; its choices come from a seed of its own, so that a graph
that fails can be made smaller. Values are whole numbers of at most `LIMIT` until a step makes fractions, so that the
last bits of a float decide nothing: what is cut off, compared or sorted is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import tensorflow as tf

LIMIT = 64.0
_MAX_RANK = 4
_MAX_WIDTH = 24


@dataclass(frozen=True)
class Made:
    """A tensor float32, and whether its values are whole numbers."""

    tensor: Any
    is_exact: bool = True

    @property
    def dims(self) -> list[int | None]:
        return list(self.tensor.shape.as_list())

    @property
    def rank(self) -> int:
        return len(self.dims)


Step = Callable[[Made, Random, Sequence[Made]], Any]
EXACT: dict[str, Step] = {}
"""steps that keep whole numbers whole"""
SHARP: dict[str, Step] = {}
"""steps that the last bits may decide"""
SMOOTH: dict[str, Step] = {}
"""steps that make fractions"""


def _into(steps: dict[str, Step]) -> Callable[[Step], Step]:
    def register(step: Step) -> Step:
        steps[step.__name__] = step
        return step

    return register


def step_names() -> list[str]:
    return [*EXACT, *SHARP, *SMOOTH]


def build(plan: Sequence[tuple[str, int]], inputs: Sequence[Any]) -> list[Any]:
    """The last tensors of a plan; steps that make no sense where they stand are left out."""
    made = [Made(each) for each in inputs]
    for name, seed in plan:
        random = Random(seed)
        source = random.choice([*made[-2:], made[-1]])
        if name in SHARP and not source.is_exact:
            continue
        try:
            found = {**EXACT, **SHARP, **SMOOTH}[name](source, random, made)
        except (ValueError, TypeError, LookupError, tf.errors.InvalidArgumentError):
            continue
        if not 1 <= (found.shape.rank or 0) <= _MAX_RANK or any(each and each > _MAX_WIDTH for each in found.shape):
            continue
        is_exact = name not in SMOOTH and all(each.is_exact for each in made)
        made.append(Made(tf.clip_by_value(tf.cast(found, tf.float32), -LIMIT, LIMIT), is_exact))
    return [each.tensor for each in made[-2:]]


def _axis(x: Made, random: Random) -> int:
    """Any axis, more often one that is not the batch."""
    axes = [axis for axis, size in enumerate(x.dims) if size is not None]
    axis: int = random.choice([*axes, *axes, *range(x.rank)])
    return axis - random.choice([0, 0, x.rank])


def _numbers(shape: Sequence[int], random: Random) -> Any:
    count = int(np.prod(shape))
    return np.array([random.randint(-2, 2) for _ in range(count)], np.float32).reshape(shape)


def _rows(x: Made) -> Any:
    """The size of the first dimension, when the graph runs."""
    return tf.shape(x.tensor)[0]


@_into(EXACT)
def unary(x: Made, random: Random, made: Sequence[Made]) -> Any:
    return random.choice([tf.nn.relu, tf.negative, tf.abs, tf.sign, tf.identity, tf.zeros_like])(x.tensor)


@_into(EXACT)
def with_constant(x: Made, random: Random, made: Sequence[Made]) -> Any:
    shape = [
        random.choice([1, 2, 3]) if size is None and not random.randrange(6) else random.choice([1, size or 1])
        for size in x.dims
    ]
    operation = random.choice([tf.add, tf.subtract, tf.multiply, tf.maximum, tf.minimum])
    return operation(x.tensor, _numbers(shape[random.choice([0, 0, 1]) :], random))


@_into(EXACT)
def with_another(x: Made, random: Random, made: Sequence[Made]) -> Any:
    return random.choice([tf.add, tf.multiply, tf.maximum])(x.tensor, random.choice(made).tensor)


@_into(EXACT)
def expand(x: Made, random: Random, made: Sequence[Made]) -> Any:
    return tf.expand_dims(x.tensor, random.randrange(-x.rank - 1, x.rank + 1))


@_into(EXACT)
def squeeze(x: Made, random: Random, made: Sequence[Made]) -> Any:
    return tf.squeeze(x.tensor) if not random.randrange(4) else tf.squeeze(x.tensor, x.dims.index(1))


@_into(EXACT)
def transpose(x: Made, random: Random, made: Sequence[Made]) -> Any:
    order = random.sample(range(x.rank), x.rank)
    return tf.transpose(x.tensor, order)


@_into(EXACT)
def flatten(x: Made, random: Random, made: Sequence[Made]) -> Any:
    return tf.reshape(x.tensor, random.choice([[-1, 2], [-1, 4], [_rows(x), -1], [-1], [3, -1], [-1, x.dims[-1] or 2]]))


@_into(EXACT)
def split_last(x: Made, random: Random, made: Sequence[Made]) -> Any:
    last = x.dims[-1]
    if last is None or last % 2:
        raise ValueError
    return tf.reshape(x.tensor, [*tf.unstack(tf.shape(x.tensor))[:-1], 2, last // 2])


@_into(EXACT)
def merge_dims(x: Made, random: Random, made: Sequence[Made]) -> Any:
    sizes = tf.unstack(tf.shape(x.tensor))
    first = random.randrange(x.rank - 1)
    return tf.reshape(x.tensor, [*sizes[:first], sizes[first] * sizes[first + 1], *sizes[first + 2 :]])


@_into(EXACT)
def reshape_back(x: Made, random: Random, made: Sequence[Made]) -> Any:
    return tf.reshape(x.tensor, tf.shape(random.choice(made).tensor))


@_into(EXACT)
def summed(x: Made, random: Random, made: Sequence[Made]) -> Any:
    operation = random.choice([tf.reduce_sum, tf.reduce_max, tf.reduce_min])
    axes = [_axis(x, random) for _ in range(random.choice([1, 1, 2]))]
    return operation(x.tensor, axis=None if not random.randrange(8) else axes, keepdims=random.choice([True, False]))


@_into(EXACT)
def running_sum(x: Made, random: Random, made: Sequence[Made]) -> Any:
    return tf.cumsum(x.tensor, axis=_axis(x, random), exclusive=random.choice([True, False]))


@_into(EXACT)
def dense(x: Made, random: Random, made: Sequence[Made]) -> Any:
    flipped = random.choice([False, False, True])
    inner = x.dims[0] if flipped and x.rank == 2 else x.dims[-1]
    if inner is None:
        raise ValueError
    weights = _numbers([inner, 3], random)
    if x.rank > 2:
        return tf.tensordot(x.tensor, weights, axes=1)
    return tf.matmul(x.tensor, weights, transpose_a=flipped)


@_into(EXACT)
def product(x: Made, random: Random, made: Sequence[Made]) -> Any:
    other = random.choice([x, *made]).tensor
    first, second = random.choice([(False, True), (True, False), (False, False)])
    return tf.matmul(x.tensor, other, transpose_a=first, transpose_b=second)


@_into(EXACT)
def einsum(x: Made, random: Random, made: Sequence[Made]) -> Any:
    equations = {
        2: ["bi,bj->bij", "bi,cj->bc", "bi,bi->b", "bi,bj->ij"],
        3: ["bij,bkj->bik", "bij,cij->bc", "bij,bij->bj"],
    }
    return tf.einsum(random.choice(equations[x.rank]), x.tensor, random.choice([x, *made]).tensor)


@_into(EXACT)
def convolution(x: Made, random: Random, made: Sequence[Made]) -> Any:
    if x.rank != 3 or x.dims[-1] is None:
        raise ValueError
    kernel = _numbers([2, x.dims[-1], 2], random)
    return tf.nn.conv1d(x.tensor, kernel, stride=random.choice([1, 2]), padding=random.choice(["SAME", "VALID"]))


@_into(EXACT)
def tile(x: Made, random: Random, made: Sequence[Made]) -> Any:
    times: list[Any] = [1] * x.rank
    times[_axis(x, random)] = random.choice([2, 2, _rows(made[0])])
    return tf.tile(x.tensor, times)


@_into(EXACT)
def spread(x: Made, random: Random, made: Sequence[Made]) -> Any:
    return tf.broadcast_to(x.tensor, tf.shape(random.choice(made).tensor))


@_into(EXACT)
def concat(x: Made, random: Random, made: Sequence[Made]) -> Any:
    return tf.concat([x.tensor, random.choice([x, *made]).tensor], axis=_axis(x, random))


@_into(EXACT)
def constant_rows(x: Made, random: Random, made: Sequence[Made]) -> Any:
    return tf.tile(_numbers([1, 2], random), [random.choice([_rows(made[0]), _rows(x), 1]), 1])


@_into(EXACT)
def constant_fill(x: Made, random: Random, made: Sequence[Made]) -> Any:
    return tf.fill([_rows(random.choice(made)), 2], 3.0)


@_into(EXACT)
def stack(x: Made, random: Random, made: Sequence[Made]) -> Any:
    parts = tf.unstack(x.tensor, axis=_axis(x, random))
    random.shuffle(parts)
    return tf.stack(parts, axis=random.randrange(x.rank))


@_into(EXACT)
def split(x: Made, random: Random, made: Sequence[Made]) -> Any:
    return tf.split(x.tensor, 2, axis=_axis(x, random))[random.choice([0, 1])]


@_into(EXACT)
def reverse(x: Made, random: Random, made: Sequence[Made]) -> Any:
    axis = _axis(x, random)
    return tf.reverse(x.tensor, [axis]) if random.choice([True, False]) else tf.roll(x.tensor, 1, axis)


@_into(EXACT)
def part(x: Made, random: Random, made: Sequence[Made]) -> Any:
    slices: list[Any] = [slice(None)] * x.rank
    parts = [slice(1, None), slice(None, -1), slice(None, None, 2), slice(None, None, -1), slice(0, 1), 0, -1]
    slices[_axis(x, random)] = random.choice([*parts, slice(None, _rows(x)), tf.newaxis])
    return x.tensor[tuple(slices)]


@_into(EXACT)
def pad(x: Made, random: Random, made: Sequence[Made]) -> Any:
    widths = [[0, 0] for _ in x.dims]
    widths[_axis(x, random)] = [1, 0]
    return tf.pad(x.tensor, widths)


@_into(EXACT)
def gather(x: Made, random: Random, made: Sequence[Made]) -> Any:
    return tf.gather(x.tensor, random.choice([[0], [0, 0], 0]), axis=_axis(x, random))


@_into(EXACT)
def chosen(x: Made, random: Random, made: Sequence[Made]) -> Any:
    """Along each row, at the places that another tensor names."""
    places = tf.cast(tf.clip_by_value(random.choice(made).tensor, 0.0, 1.0), tf.int32)
    return tf.gather(x.tensor, places, axis=1, batch_dims=random.choice([0, 1]))


@_into(EXACT)
def embedding(x: Made, random: Random, made: Sequence[Made]) -> Any:
    return tf.gather(_numbers([4, 2], random), tf.cast(tf.clip_by_value(x.tensor, 0.0, 3.0), tf.int32))


@_into(EXACT)
def number_of_rows(x: Made, random: Random, made: Sequence[Made]) -> Any:
    return x.tensor + tf.cast(random.choice([tf.size(x.tensor), _rows(x), tf.shape(x.tensor)[-1]]), tf.float32)


@_into(EXACT)
def places(x: Made, random: Random, made: Sequence[Made]) -> Any:
    axis = _axis(x, random)
    numbers = tf.cast(tf.range(tf.shape(x.tensor)[axis]), tf.float32)
    shape = [1] * x.rank
    shape[axis] = -1
    return x.tensor + tf.reshape(numbers, shape)


@_into(EXACT)
def over_time(x: Made, random: Random, made: Sequence[Made]) -> Any:
    """A loop over some axis."""
    order = [_axis(x, random) % x.rank]
    order += [axis for axis in range(x.rank) if axis not in order]
    steps = tf.transpose(x.tensor, order)
    found = tf.scan(lambda state, step: state + step, steps, tf.zeros_like(steps[0]))
    return tf.transpose(found, [order.index(axis) for axis in range(x.rank)])


@_into(EXACT)
def masked(x: Made, random: Random, made: Sequence[Made]) -> Any:
    return tf.linalg.band_part(x.tensor, 0, -1)


@_into(SHARP)
def where(x: Made, random: Random, made: Sequence[Made]) -> Any:
    return tf.where(x.tensor > 0.0, x.tensor, random.choice([*made[-2:], Made(tf.constant(1.0))]).tensor)


@_into(SHARP)
def best(x: Made, random: Random, made: Sequence[Made]) -> Any:
    return tf.argmax(x.tensor, axis=_axis(x, random))


@_into(SHARP)
def sort(x: Made, random: Random, made: Sequence[Made]) -> Any:
    return random.choice([tf.sort, tf.argsort])(x.tensor, axis=_axis(x, random))


@_into(SHARP)
def one_of_many(x: Made, random: Random, made: Sequence[Made]) -> Any:
    depth = random.choice([3, 3, 3, _rows(x)])
    return tf.one_hot(tf.cast(x.tensor, tf.int32), depth, axis=random.choice([-1, 0, 1]))


@_into(SHARP)
def counts(x: Made, random: Random, made: Sequence[Made]) -> Any:
    numbers = tf.cast(tf.abs(x.tensor), tf.int32)
    return tf.math.bincount(
        numbers, minlength=5, maxlength=random.choice([5, 5, None]), axis=random.choice([-1, -1, 0])
    )


@_into(SHARP)
def branch(x: Made, random: Random, made: Sequence[Made]) -> Any:
    conditions = [
        tf.reduce_sum(x.tensor) > 0.0,
        tf.shape(x.tensor)[-1] > 2,
        _rows(x) > 2,
        tf.reduce_all(x.tensor > -3.0),
    ]
    return tf.cond(random.choice(conditions), lambda: x.tensor + 1.0, lambda: -x.tensor)


@_into(SHARP)
def asserted(x: Made, random: Random, made: Sequence[Made]) -> Any:
    about = random.choice([x, *made]).tensor
    conditions = [
        tf.reduce_all(about > -40.0),
        tf.reduce_any(about > 0.0),
        tf.reduce_sum(about) > -9.0,
        _rows(x) < 5,
        tf.logical_not(tf.reduce_any(about > 40.0)),
    ]
    with tf.control_dependencies([tf.Assert(random.choice(conditions), ["refused"])]):
        return tf.identity(x.tensor)


@_into(SHARP)
def asserted_by_tensorflow(x: Made, random: Random, made: Sequence[Made]) -> Any:
    about = random.choice([x.tensor, tf.reduce_sum(x.tensor), x.tensor[0]])
    with tf.control_dependencies([tf.debugging.assert_greater(about, -9.0)]):
        return tf.identity(x.tensor)


@_into(SHARP)
def unique(x: Made, random: Random, made: Sequence[Made]) -> Any:
    return x.tensor + tf.cast(tf.size(tf.unique(tf.reshape(x.tensor, [-1]))[0]), tf.float32)


@_into(SHARP)
def kept(x: Made, random: Random, made: Sequence[Made]) -> Any:
    return tf.boolean_mask(x.tensor, x.tensor > 0.0)


@_into(SMOOTH)
def activation(x: Made, random: Random, made: Sequence[Made]) -> Any:
    return random.choice([tf.tanh, tf.sigmoid, tf.nn.gelu, tf.nn.elu])(x.tensor)


@_into(SMOOTH)
def softmax(x: Made, random: Random, made: Sequence[Made]) -> Any:
    return random.choice([tf.nn.softmax, tf.nn.log_softmax])(x.tensor, axis=_axis(x, random))


@_into(SMOOTH)
def normalised(x: Made, random: Random, made: Sequence[Made]) -> Any:
    axis = _axis(x, random)
    mean, variance = tf.nn.moments(x.tensor, [axis], keepdims=True)
    return (x.tensor - mean) * tf.math.rsqrt(variance + 1.0)


@_into(SMOOTH)
def unit_length(x: Made, random: Random, made: Sequence[Made]) -> Any:
    return tf.math.l2_normalize(x.tensor, axis=_axis(x, random), epsilon=1.0)


@_into(SMOOTH)
def average(x: Made, random: Random, made: Sequence[Made]) -> Any:
    return tf.reduce_mean(x.tensor, axis=_axis(x, random), keepdims=random.choice([True, False]))


@_into(SMOOTH)
def attention(x: Made, random: Random, made: Sequence[Made]) -> Any:
    return tf.matmul(tf.nn.softmax(tf.matmul(x.tensor, x.tensor, transpose_b=True) / 8.0), x.tensor)
