"""Operations that take a part of a tensor, by place or by index."""

from __future__ import annotations

from collections.abc import Sequence

from serving.runtime.row_independence.dims import ONE, Dim, NotProven, Shape, dim, has_batch, number, unknown
from serving.runtime.row_independence.rules import Node, Outputs, rule
from serving.runtime.row_independence.shaping import axis_of
from serving.runtime.row_independence.values import (
    Sizes,
    Value,
    Variable,
    as_sizes,
    elements_of,
    fixed,
    integer,
    integers,
    shape_of,
    tensor,
    with_shape,
)

_Elements = Sequence[Dim | None]


@rule("StridedSlice")
def _strided_slice(node: Node, inputs: Sequence[Value]) -> Outputs:
    value, *bounds = inputs
    if isinstance(value, Sizes) and not value.is_scalar:
        return _slice_of_sizes(node, value, bounds)
    spec = _Spec(node, [_elements(each) for each in bounds])
    return with_shape(spec.applied(shape_of(tensor(value))))


def _elements(value: Value) -> _Elements:
    found = as_sizes(value)
    if found is None:
        raise NotProven
    return found.elements


def _slice_of_sizes(node: Node, value: Sizes, bounds: Sequence[Value]) -> Value:
    begin, end, step = (integer(each) for each in bounds)
    if node.integer("ellipsis_mask") or node.integer("new_axis_mask"):
        raise NotProven
    if node.integer("shrink_axis_mask"):
        if not -len(value.elements) <= begin < len(value.elements):
            raise NotProven
        return Sizes((value.elements[begin],), is_scalar=True)
    first = None if node.integer("begin_mask") else begin
    last = None if node.integer("end_mask") else end
    return Sizes(value.elements[first:last:step])


class _Spec:
    """What is to be done with the dimensions of a tensor, one after the other."""

    def __init__(self, node: Node, bounds: Sequence[_Elements]) -> None:
        self._begin, self._end, self._step = bounds
        masks = ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask")
        self._masks = {name: node.integer(name) for name in masks}

    def applied(self, shape: Shape) -> list[Dim]:
        """What remains of a shape."""
        found: list[Dim] = []
        axis = 0
        for position in range(len(self._begin)):
            if self._has("ellipsis_mask", position):
                later = range(position + 1, len(self._begin))
                skipped = len(shape) - axis - sum(not self._has("new_axis_mask", each) for each in later)
                found += shape[axis : axis + skipped]
                axis += skipped
            elif self._has("new_axis_mask", position):
                found.append(ONE)
            elif axis >= len(shape):
                raise NotProven
            else:
                found += self._part(shape[axis], position)
                axis += 1
        return [*found, *shape[axis:]]

    def _has(self, mask: str, position: int) -> bool:
        return bool(self._masks[mask] >> position & 1)

    def _part(self, size: Dim, position: int) -> list[Dim]:
        step = self._step[position]
        is_from_start = self._has("begin_mask", position) or self._begin[position] == (0,)
        is_to_end = self._has("end_mask", position) or self._end[position] == size
        if self._has("shrink_axis_mask", position):
            _refuse_batch(size, self._begin[position])
            return []
        if is_from_start and is_to_end and step == ONE:
            return [size]
        _refuse_batch(size, step)
        if not self._has("begin_mask", position):
            _refuse_batch(self._begin[position])
        if not self._has("end_mask", position):
            _refuse_batch(self._end[position])
        return [self._length(size, position)]

    def _length(self, size: Dim, position: int) -> Dim:
        bounds = [
            None if mask and self._has(mask, position) else _number(elements[position], mask)
            for mask, elements in (("begin_mask", self._begin), ("end_mask", self._end), ("", self._step))
        ]
        whole = number(size)
        if whole is None or _UNKNOWN in bounds:
            return unknown()
        return dim(len(range(*slice(*bounds).indices(whole))))


_UNKNOWN = object()


def _number(element: Dim | None, mask: str) -> object:
    found = None if element is None else number(element)
    return _UNKNOWN if found is None or (not mask and not found) else found


def _refuse_batch(*sizes: Dim | None) -> None:
    if any(has_batch(size) for size in sizes if size is not None):
        raise NotProven


@rule("Slice")
def _slice(node: Node, inputs: Sequence[Value]) -> Outputs:
    value, begins, sizes = inputs
    if isinstance(value, Sizes):
        (first,), (count,) = integers(begins), integers(sizes)
        return Sizes(value.elements[first : None if count < 0 else first + count])
    shape = shape_of(tensor(value))
    parts = zip(shape, _elements(begins), _elements(sizes), strict=True)
    return with_shape([_sliced(*part) for part in parts])


def _sliced(whole: Dim, begin: Dim | None, size: Dim | None) -> Dim:
    if begin == (0,) and size in ((-1,), whole):
        return whole
    _refuse_batch(whole, begin, size)
    if size is None or (size == (-1,) and (begin is None or number(begin) is None or number(whole) is None)):
        return unknown()
    return dim((number(whole) or 0) - (number(begin or ()) or 0)) if size == (-1,) else size


@rule("GatherV2")
def _gather(node: Node, inputs: Sequence[Value]) -> Outputs:
    params, indices, axis = inputs
    if isinstance(params, Sizes):
        return _gather_of_sizes(params, indices)
    batch_dims = node.integer("batch_dims")
    shape, chosen = shape_of(tensor(params)), shape_of(tensor(indices))
    along = axis_of(integer(axis), len(shape))
    batch_dims = batch_dims + len(chosen) if batch_dims < 0 else batch_dims
    if has_batch(shape[along]) or not 0 <= batch_dims <= min(along, len(chosen)):
        raise NotProven
    shared = [_both(*sizes) for sizes in zip(shape[:batch_dims], chosen[:batch_dims], strict=True)]
    return with_shape([*shared, *shape[batch_dims:along], *chosen[batch_dims:], *shape[along + 1 :]])


def _gather_of_sizes(params: Sizes, indices: Value) -> Value:
    places = integers(indices)
    if any(not 0 <= place < len(params.elements) for place in places) or params.is_scalar:
        raise NotProven
    is_scalar = isinstance(indices, Sizes) and indices.is_scalar
    return Sizes(tuple(params.elements[place] for place in places), is_scalar)


def _both(one: Dim, other: Dim) -> Dim:
    if (has_batch(one) or has_batch(other)) and one != other:
        raise NotProven
    return one


@rule("ResourceGather")
def _resource_gather(node: Node, inputs: Sequence[Value]) -> Outputs:
    variable, indices = inputs
    if not isinstance(variable, Variable) or variable.shape is None or node.integer("batch_dims"):
        raise NotProven
    return with_shape([*shape_of(tensor(indices)), *variable.shape[1:]])


@rule("Gather")
def _gather_first(node: Node, inputs: Sequence[Value]) -> Outputs:
    return with_shape([*shape_of(tensor(inputs[1])), *shape_of(fixed(inputs[0]))[1:]])


@rule("GatherNd", "ResourceGatherNd")
def _gather_nd(node: Node, inputs: Sequence[Value]) -> Outputs:
    params, indices = inputs
    shape = params.shape if isinstance(params, Variable) else shape_of(fixed(params))
    *places, depth = shape_of(tensor(indices))
    known = number(depth)
    if shape is None or known is None:
        raise NotProven
    return with_shape([*places, *shape[known:]])


@rule("TopKV2", "TopK")
def _top_k(node: Node, inputs: Sequence[Value]) -> Outputs:
    *leading, last = shape_of(tensor(inputs[0]))
    _refuse_batch(last)
    if node.operation == "TopK":
        return with_shape([*leading, dim(node.integer("k"))])
    known = elements_of(inputs[1])[0] if isinstance(inputs[1], Sizes) else None
    fixed(inputs[1])
    return with_shape([*leading, unknown() if known is None else known])


@rule("InTopKV2", "InTopK")
def _in_top_k(node: Node, inputs: Sequence[Value]) -> Outputs:
    predictions, targets = shape_of(tensor(inputs[0])), shape_of(tensor(inputs[1]))
    for each in inputs[2:]:
        fixed(each)
    _refuse_batch(predictions[1])
    return with_shape([_both(predictions[0], targets[0])])
