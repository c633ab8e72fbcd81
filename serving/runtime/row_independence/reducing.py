"""Operations over whole axes: sums, softmax, running sums, the place of the greatest."""

from __future__ import annotations

from collections.abc import Sequence

from serving.runtime.row_independence.dims import ONE, Dim, NotProven, has_batch, product
from serving.runtime.row_independence.rules import Node, Outputs, rule
from serving.runtime.row_independence.shaping import axis_of, refuse_batch
from serving.runtime.row_independence.values import (
    Coupled,
    Fixed,
    Rows,
    Sizes,
    Value,
    fixed,
    integer,
    integers,
    is_scalar,
    length_of,
    rows,
    shape_of,
    tensor,
    with_shape,
)

_REDUCTIONS = ("Sum", "Mean", "Prod", "Max", "Min", "All", "Any", "EuclideanNorm")


@rule(*_REDUCTIONS, is_total=True)
def _reduction(node: Node, inputs: Sequence[Value]) -> Outputs:
    value, axes = inputs
    if isinstance(value, Sizes):
        return _reduction_of_sizes(node, value)
    shape = shape_of(tensor(value))
    reduced = {axis_of(axis, len(shape)) for axis in integers(axes)}
    keeps = node.boolean("keep_dims")
    if any(has_batch(shape[axis]) for axis in reduced):
        if keeps or len(reduced) < len(shape):
            raise NotProven
        return Coupled(node.origin, is_scalar=True, holds_for_all=node.operation == "All")
    return with_shape(
        [ONE if axis in reduced else size for axis, size in enumerate(shape) if keeps or axis not in reduced]
    )


def _reduction_of_sizes(node: Node, value: Sizes) -> Value:
    if node.operation != "Prod" or None in value.elements or node.boolean("keep_dims"):
        return Fixed(()) if fixed(value) and not node.boolean("keep_dims") else Fixed()
    return Sizes((product(each for each in value.elements if each is not None),), is_scalar=True)


@rule("Softmax", "LogSoftmax", is_total=True)
def _softmax(node: Node, inputs: Sequence[Value]) -> Outputs:
    found = tensor(inputs[0])
    refuse_batch(found, axis_of(-1, len(shape_of(found))))
    return _same(found)


@rule("LRN", is_total=True)
def _normalisation_over_depth(node: Node, inputs: Sequence[Value]) -> Outputs:
    return _softmax(node, inputs)


@rule("Cumsum", "Cumprod", "CumulativeLogsumexp", is_total=True)
def _running(node: Node, inputs: Sequence[Value]) -> Outputs:
    found = tensor(inputs[0])
    refuse_batch(found, axis_of(integer(inputs[1]), len(shape_of(found))))
    return _same(found)


@rule("ArgMax", "ArgMin", is_total=True)
def _place(node: Node, inputs: Sequence[Value]) -> Outputs:
    shape = list(shape_of(tensor(inputs[0])))
    axis = axis_of(integer(inputs[1]), len(shape))
    refuse_batch(inputs[0], axis)
    del shape[axis]
    return with_shape(shape)


@rule("DenseBincount", takes_coupled=True)
def _bincount(node: Node, inputs: Sequence[Value]) -> Outputs:
    """How often each number is in each row; how many numbers there are may have been found out from all rows."""
    found, size, weights = inputs
    shape = rows(found).shape
    if len(shape) != 2 or has_batch(shape[1]):
        raise NotProven
    if tensor(weights) != found and shape_of(weights) != ((0,),):
        raise NotProven
    return Rows((shape[0], _bins(size)))


def _bins(size: Value) -> Dim:
    if not isinstance(size, Coupled):
        return length_of(size)
    if not is_scalar(size) or size.at_least is None or size.at_least != size.at_most:
        raise NotProven
    return (size.at_least,) if size.at_least != 1 else ONE


def _same(found: Value) -> Value:
    return found if isinstance(found, Rows) else Fixed(shape_of(found))
