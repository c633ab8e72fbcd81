"""Operations that move elements, or count them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from serving.runtime.row_independence.dims import (
    ONE,
    Dim,
    NotProven,
    Shape,
    dim,
    has_batch,
    number,
    product,
    quotient,
    regrouped,
    size_of,
    unknown,
)
from serving.runtime.row_independence.rules import Node, Outputs, rule
from serving.runtime.row_independence.values import (
    MAX_ELEMENTS,
    Fixed,
    Rows,
    Sizes,
    Value,
    as_sizes,
    elements_of,
    fixed,
    integer,
    integers,
    is_fixed,
    is_scalar,
    length_of,
    shape_of,
    tensor,
    with_shape,
)

_WHOLE: Dim = (-1,)


def axis_of(axis: int, rank: int) -> int:
    """
    The number of an axis from the front.

    Raises:
        NotProven: There is no such axis.
    """
    if not -rank <= axis < rank:
        raise NotProven
    return axis % rank


def refuse_batch(value: Value, axis: int) -> None:
    """
    See to it that the batch is no factor of this axis.

    Raises:
        NotProven: It is.
    """
    if has_batch(shape_of(value)[axis]):
        raise NotProven


@rule("Shape")
def _shape(node: Node, inputs: Sequence[Value]) -> Outputs:
    return Sizes(shape_of(inputs[0]))


@rule("ShapeN")
def _shapes(node: Node, inputs: Sequence[Value]) -> Outputs:
    return [Sizes(shape_of(each)) for each in inputs]


@rule("VariableShape")
def _variable_shape(node: Node, inputs: Sequence[Value]) -> Outputs:
    return Fixed()


@rule("Rank")
def _rank(node: Node, inputs: Sequence[Value]) -> Outputs:
    return Sizes((dim(len(shape_of(inputs[0]))),), is_scalar=True)


@rule("Size")
def _size(node: Node, inputs: Sequence[Value]) -> Outputs:
    return Sizes((product(shape_of(inputs[0])),), is_scalar=True)


@rule("Reshape")
def _reshape(node: Node, inputs: Sequence[Value]) -> Outputs:
    wanted = elements_of(inputs[1])
    if isinstance(inputs[0], Sizes):
        return Sizes(inputs[0].elements, is_scalar=not wanted) if len(wanted) <= 1 else tensor(inputs[0])
    found = tensor(inputs[0])
    if isinstance(found, Rows):
        return Rows(regrouped(found.shape, _resolved(found.shape, wanted)))
    if any(has_batch(element) for element in wanted if element is not None):
        raise NotProven
    with suppress(NotProven):
        return Fixed(tuple(_resolved(shape_of(found), wanted)))
    return Fixed(tuple(unknown() if element in (None, _WHOLE) else _known(element) for element in wanted))


def _resolved(shape: Shape, wanted: Sequence[Dim | None]) -> list[Dim]:
    """The sizes that are wanted, with -1 as what it stands for."""
    sizes = [_known(size) for size in wanted]
    if _WHOLE not in sizes:
        return sizes
    position = sizes.index(_WHOLE)
    others = [size for index, size in enumerate(sizes) if index != position]
    sizes[position] = quotient(product(shape), product(others))
    return sizes


def _known(size: Dim | None) -> Dim:
    if size is None:
        raise NotProven
    return size


@rule("ExpandDims")
def _expand_dims(node: Node, inputs: Sequence[Value]) -> Outputs:
    axis = integer(inputs[1])
    if isinstance(inputs[0], Sizes) and inputs[0].is_scalar:
        return Sizes(inputs[0].elements)
    shape = list(shape_of(tensor(inputs[0])))
    shape.insert(axis_of(axis, len(shape) + 1), ONE)
    return with_shape(shape)


@rule("Squeeze")
def _squeeze(node: Node, inputs: Sequence[Value]) -> Outputs:
    if isinstance(inputs[0], Sizes) and len(inputs[0].elements) == 1:
        return Sizes(inputs[0].elements, is_scalar=True)
    shape = shape_of(tensor(inputs[0]))
    axes = {axis_of(axis, len(shape)) for axis in node.integers("squeeze_dims")}
    if not axes or any(has_batch(shape[axis]) for axis in axes):  # without axes, a batch of one would go too
        raise NotProven
    return with_shape([length for axis, length in enumerate(shape) if axis not in axes])


@rule("Transpose", "ConjugateTranspose")
def _transpose(node: Node, inputs: Sequence[Value]) -> Outputs:
    shape = shape_of(tensor(inputs[0]))
    order = [axis_of(axis, len(shape)) for axis in integers(inputs[1])]
    if sorted(order) != list(range(len(shape))):
        raise NotProven
    return with_shape([shape[axis] for axis in order])


@rule("ConcatV2")
def _concat(node: Node, inputs: Sequence[Value]) -> Outputs:
    *parts, axis = inputs
    if any(isinstance(part, Sizes) for part in parts):
        return Sizes(tuple(element for part in _all_sizes(parts) for element in part.elements))
    shapes = [shape_of(tensor(part)) for part in parts]
    along = axis_of(integer(axis), len(shapes[0]))
    if any(len(shape) != len(shapes[0]) for shape in shapes):
        raise NotProven
    sizes = [_agreed([shape[each] for shape in shapes]) if each != along else ONE for each in range(len(shapes[0]))]
    sizes[along] = _sum([shape[along] for shape in shapes])
    return with_shape(sizes)


def _all_sizes(values: Sequence[Value]) -> list[Sizes]:
    found = [as_sizes(value) for value in values]
    if None in found:
        raise NotProven
    return [each for each in found if each is not None]


def _agreed(sizes: list[Dim]) -> Dim:
    """One size for what must be of one size; where the batch has a part, that must be sure."""
    if any(map(has_batch, sizes)) and any(size != sizes[0] for size in sizes):
        raise NotProven
    return sizes[0]


def _sum(sizes: list[Dim]) -> Dim:
    if any(map(has_batch, sizes)):
        raise NotProven
    numbers = [number(size) for size in sizes]
    return unknown() if None in numbers else dim(sum(each for each in numbers if each is not None))


@rule("Pack")
def _pack(node: Node, inputs: Sequence[Value]) -> Outputs:
    axis = node.integer("axis")
    if all(map(is_scalar, inputs)) and any(isinstance(each, Sizes) for each in inputs):
        return Sizes(tuple(each.elements[0] for each in _all_sizes(inputs)))
    shapes = [shape_of(tensor(each)) for each in inputs]
    if any(len(shape) != len(shapes[0]) for shape in shapes):
        raise NotProven
    shape = [_agreed(list(sizes)) for sizes in zip(*shapes, strict=True)]
    shape.insert(axis_of(axis, len(shape) + 1), dim(len(inputs)))
    return with_shape(shape)


@rule("Unpack")
def _unpack(node: Node, inputs: Sequence[Value]) -> Outputs:
    if isinstance(inputs[0], Sizes) and not inputs[0].is_scalar:
        return [Sizes((element,), is_scalar=True) for element in inputs[0].elements]
    shape = list(shape_of(tensor(inputs[0])))
    axis = axis_of(node.integer("axis"), len(shape))
    refuse_batch(inputs[0], axis)
    del shape[axis]
    return with_shape(shape)


@rule("Split")
def _split(node: Node, inputs: Sequence[Value]) -> Outputs:
    axis, value = inputs
    count = node.integer("num_split")
    whole = number(shape_of(tensor(value))[axis_of(integer(axis), len(shape_of(value)))])
    part = dim(whole // count) if whole is not None and count else unknown()
    return _parts(value, axis, [part] * count)


@rule("SplitV")
def _split_by_sizes(node: Node, inputs: Sequence[Value]) -> Outputs:
    value, sizes, axis = inputs
    known = sizes.integers if isinstance(sizes, Sizes) else None
    fixed(sizes)
    return _parts(value, axis, [size_of(each) for each in known or [-1] * node.integer("num_split")])


def _parts(value: Value, axis: Value, sizes: Sequence[Dim]) -> list[Value]:
    shape = list(shape_of(tensor(value)))
    along = axis_of(integer(axis), len(shape))
    refuse_batch(value, along)
    return [with_shape([*shape[:along], part, *shape[along + 1 :]]) for part in sizes]


@rule("Tile")
def _tile(node: Node, inputs: Sequence[Value]) -> Outputs:
    shape, times = shape_of(tensor(inputs[0])), elements_of(inputs[1])
    if len(times) != len(shape):
        raise NotProven
    return with_shape([_tiled(size, time) for size, time in zip(shape, times, strict=True)])


def _tiled(size: Dim, times: Dim | None) -> Dim:
    if times == ONE:
        return size
    if has_batch(size):
        raise NotProven
    return unknown() if times is None else dim(*times, *size)


@rule("BroadcastTo")
def _broadcast_to(node: Node, inputs: Sequence[Value]) -> Outputs:
    shape, wanted = shape_of(tensor(inputs[0])), elements_of(inputs[1])
    if len(wanted) < len(shape):
        raise NotProven
    shape = (ONE,) * (len(wanted) - len(shape)) + shape
    found = []
    for size, target in zip(shape, wanted, strict=True):
        involved = has_batch(size) or (target is not None and has_batch(target))
        if involved and size not in (ONE, target):
            raise NotProven
        found.append(unknown() if target is None else target)
    return with_shape(found)


@rule("Fill")
def _fill(node: Node, inputs: Sequence[Value]) -> Outputs:
    fixed(inputs[1])
    return with_shape([unknown() if size is None else size for size in elements_of(inputs[0])])


@rule("Range")
def _range(node: Node, inputs: Sequence[Value]) -> Outputs:
    if not all(map(is_fixed, inputs)):
        raise NotProven
    bounds = [each.integers for each in inputs if isinstance(each, Sizes)]
    if len(bounds) < len(inputs) or None in bounds:
        return Fixed((unknown(),))
    start, limit, step = (bound[0] for bound in bounds if bound)
    numbers = range(start, limit, step or 1)
    return Sizes(tuple(map(dim, numbers))) if step and len(numbers) <= MAX_ELEMENTS else Fixed((unknown(),))


@rule("Pad", "PadV2", "MirrorPad")
def _pad(node: Node, inputs: Sequence[Value]) -> Outputs:
    shape = shape_of(tensor(inputs[0]))
    for padding in inputs[2:]:
        fixed(padding)
    widths = inputs[1]
    known = widths.constant if isinstance(widths, Fixed) else None
    if known is None or known.shape != (len(shape), 2):
        raise NotProven
    return with_shape([_padded(size, int(before + after)) for size, (before, after) in zip(shape, known, strict=True)])


def _padded(size: Dim, more: int) -> Dim:
    if not more:
        return size
    if has_batch(size):
        raise NotProven
    whole = number(size)
    return unknown() if whole is None else dim(whole + more)


@rule("OneHot")
def _one_hot(node: Node, inputs: Sequence[Value]) -> Outputs:
    indices, depth, *values = inputs
    for each in values:
        fixed(each)
    shape = list(shape_of(tensor(indices)))
    shape.insert(axis_of(node.integer("axis", -1), len(shape) + 1), length_of(depth))
    return with_shape(shape)


@rule("ReverseV2", is_total=True)
def _reverse(node: Node, inputs: Sequence[Value]) -> Outputs:
    found = tensor(inputs[0])
    for axis in integers(inputs[1]):
        refuse_batch(found, axis_of(axis, len(shape_of(found))))
    return found if isinstance(found, Rows) else Fixed(found.shape)


@rule("Roll", is_total=True)
def _roll(node: Node, inputs: Sequence[Value]) -> Outputs:
    fixed(inputs[1])
    return _reverse(node, [inputs[0], inputs[2]])


@rule("MatrixBandPart")
def _band_part(node: Node, inputs: Sequence[Value]) -> Outputs:
    for each in inputs[1:]:
        fixed(each)
    found = tensor(inputs[0])
    for axis in (-2, -1):
        refuse_batch(found, axis_of(axis, len(shape_of(found))))
    return found if isinstance(found, Rows) else Fixed(found.shape)
