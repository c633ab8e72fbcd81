"""Products of matrices, convolutions, pooling, normalisation and images."""

from __future__ import annotations

from collections.abc import Sequence

from serving.runtime.row_independence.dims import Dim, NotProven, Shape, coefficient, dim, has_batch, number, unknown
from serving.runtime.row_independence.einsum import contracted
from serving.runtime.row_independence.rules import Node, Outputs, rule
from serving.runtime.row_independence.shaping import axis_of
from serving.runtime.row_independence.values import (
    Fixed,
    Rows,
    Sizes,
    Value,
    broadcast,
    fixed,
    integers,
    rows,
    shape_of,
    tensor,
    with_shape,
)


@rule("MatMul")
def _matmul(node: Node, inputs: Sequence[Value]) -> Outputs:
    return _product(node, inputs, "transpose_a", "transpose_b")


@rule("BatchMatMul", "BatchMatMulV2", "BatchMatMulV3")
def _batch_matmul(node: Node, inputs: Sequence[Value]) -> Outputs:
    return _product(node, inputs, "adj_x", "adj_y")


def _product(node: Node, inputs: Sequence[Value], *flips: str) -> Outputs:
    """Rows may be multiplied with what is fixed, or, where there are many matrices, with their own."""
    sides = []
    for value, flip in zip(inputs, flips, strict=True):
        shape = shape_of(tensor(value))
        if len(shape) < 2:
            raise NotProven
        *many, height, width = shape
        sides.append((many, width, height) if node.boolean(flip) else (many, height, width))
    (left_many, height, inner), (right_many, other_inner, width) = sides
    if has_batch(inner) or has_batch(other_inner):
        raise NotProven
    return with_shape([*broadcast([tuple(left_many), tuple(right_many)]), height, width])


@rule("Einsum")
def _einsum(node: Node, inputs: Sequence[Value]) -> Outputs:
    return with_shape(contracted(node.text("equation"), [shape_of(tensor(each)) for each in inputs]))


@rule("BiasAdd")
def _bias_add(node: Node, inputs: Sequence[Value]) -> Outputs:
    found = rows(inputs[0])
    fixed(inputs[1])
    if has_batch(found.shape[_channel_axis(node, found.rank)]):
        raise NotProven
    return found


@rule("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
def _batch_norm(node: Node, inputs: Sequence[Value]) -> Outputs:
    found = rows(inputs[0])
    for each in inputs[1:]:
        fixed(each)
    if node.boolean("is_training", True) or has_batch(found.shape[_channel_axis(node, found.rank)]):
        raise NotProven
    return [found, *[Fixed()] * 5]


def _channel_axis(node: Node, rank: int) -> int:
    return 1 if node.text("data_format", "N").startswith("NC") else axis_of(-1, rank)


@rule("Conv2D", "Conv3D", "DepthwiseConv2dNative")
def _convolution(node: Node, inputs: Sequence[Value]) -> Outputs:
    image, kernel = _images(inputs[0]), shape_of(fixed(inputs[1]))
    space = len(image) - 2
    channels = kernel[-1]
    if node.operation == "DepthwiseConv2dNative":
        channels = _times(kernel[-1], kernel[-2])
    return Rows(_windows(node, image, list(kernel[:space]), channels, node.integers("dilations")))


@rule("MaxPool", "AvgPool", "MaxPool3D", "AvgPool3D")
def _pooling(node: Node, inputs: Sequence[Value]) -> Outputs:
    image, sizes = _images(inputs[0]), node.integers("ksize")
    spatial = _spatial_axes(node, len(image))
    if any(sizes[axis] != 1 for axis in range(len(image)) if axis not in spatial):
        raise NotProven
    kernel = [dim(sizes[axis]) for axis in spatial]
    return Rows(_windows(node, image, kernel, image[_channel_axis(node, len(image))]))


def _images(value: Value) -> Shape:
    """The shape of pictures, the batch of which is the first dimension alone."""
    shape = rows(value).shape
    if len(shape) not in (4, 5) or not has_batch(shape[0]):
        raise NotProven
    return shape


def _spatial_axes(node: Node, rank: int) -> list[int]:
    first = 2 if _channel_axis(node, rank) == 1 else 1
    return list(range(first, first + rank - 2))


def _windows(node: Node, image: Shape, kernel: Sequence[Dim], channels: Dim, dilations: Sequence[int] = ()) -> Shape:
    """The shape of what is made of windows of this size moved over each picture."""
    strides, spatial = node.integers("strides"), _spatial_axes(node, len(image))
    if strides[0] != 1 or (dilations and dilations[0] != 1):
        raise NotProven
    shape = list(image)
    for axis, window in zip(spatial, kernel, strict=True):
        shape[axis] = _window_count(node, axis, image[axis], window, strides[axis], (dilations or (1,) * 5)[axis])
    shape[_channel_axis(node, len(image))] = channels
    return tuple(shape)


def _window_count(node: Node, axis: int, size: Dim, window: Dim, stride: int, dilation: int) -> Dim:
    whole, width = number(size), number(window)
    padding = node.text("padding")
    if whole is None or width is None or padding not in ("SAME", "VALID", "EXPLICIT"):
        return unknown()
    if padding == "SAME":
        return dim(-(-whole // stride))
    explicit = node.integers("explicit_paddings")
    added = sum(explicit[2 * axis : 2 * axis + 2]) if padding == "EXPLICIT" else 0
    return dim(max(0, (whole + added - (width - 1) * dilation - 1) // stride + 1))


def _times(one: Dim, other: Dim) -> Dim:
    return dim(*one, *other)


@rule("Conv2DBackpropInput", "Conv3DBackpropInputV2")
def _transposed_convolution(node: Node, inputs: Sequence[Value]) -> Outputs:
    """A convolution backwards: the size of what it gives is asked for, the batch included."""
    sizes, kernel, image = inputs
    fixed(kernel)
    shape = _images(image)
    wanted = sizes.elements if isinstance(sizes, Sizes) else ()
    if not wanted or wanted[0] != shape[0] or node.integers("strides")[0] != 1:
        raise NotProven
    return with_shape([unknown() if size is None else size for size in wanted])


@rule("ResizeBilinear", "ResizeNearestNeighbor", "ResizeBicubic", "ResizeArea")
def _resize(node: Node, inputs: Sequence[Value]) -> Outputs:
    images, _, _, channels = _images(inputs[0])
    fixed(inputs[1])
    height, width = integers(inputs[1])
    return Rows((images, dim(height), dim(width), channels))


@rule("AdjustContrastv2", "AdjustHue", "AdjustSaturation")
def _adjusted(node: Node, inputs: Sequence[Value]) -> Outputs:
    fixed(inputs[1])
    return _within_pictures(inputs[0])


@rule("RGBToHSV", "HSVToRGB")
def _colours(node: Node, inputs: Sequence[Value]) -> Outputs:
    return _within_pictures(inputs[0])


def _within_pictures(value: Value) -> Rows:
    found = rows(value)
    if found.axis >= found.rank - 3:
        raise NotProven
    return found


@rule("DepthToSpace", "SpaceToDepth")
def _rearranged(node: Node, inputs: Sequence[Value]) -> Outputs:
    """Channels become pixels, or pixels channels, within each picture."""
    images, height, width, channels = _images(inputs[0])
    block = node.integer("block_size")
    if node.text("data_format", "NHWC") != "NHWC":
        raise NotProven
    up, down = (block, 1) if node.operation == "DepthToSpace" else (1, block)
    depth = _scaled(channels, down * down, up * up)
    return Rows((images, _scaled(height, up, down), _scaled(width, up, down), depth))


def _scaled(size: Dim, factor: int, divisor: int) -> Dim:
    whole = number(size)
    return unknown() if whole is None else dim(whole * factor // divisor)


@rule("SpaceToBatchND")
def _space_to_batch(node: Node, inputs: Sequence[Value]) -> Outputs:
    """Pictures become many small ones: of each place in a block, one of every picture."""
    image, block, paddings = rows(inputs[0]), integers(inputs[1]), fixed(inputs[2])
    if not has_batch(image.shape[0]) or len(block) >= image.rank:
        raise NotProven
    count = coefficient(dim(*block))
    spatial = [_blocks(image.shape[1 + index], size, paddings, index) for index, size in enumerate(block)]
    return Rows((dim(count, *image.shape[0]), *spatial, *image.shape[1 + len(block) :]))


def _blocks(size: Dim, block: int, paddings: Fixed, index: int) -> Dim:
    whole = number(size)
    if whole is None or paddings.constant is None:
        return unknown()
    return dim((whole + int(paddings.constant[index].sum())) // block)


@rule("BatchToSpaceND")
def _batch_to_space(node: Node, inputs: Sequence[Value]) -> Outputs:
    image, block, crops = rows(inputs[0]), integers(inputs[1]), fixed(inputs[2])
    count, first = coefficient(dim(*block)), image.shape[0]
    if not has_batch(first) or first[0] != count or len(block) >= image.rank:
        raise NotProven
    spatial = [_unblocked(image.shape[1 + index], size, crops, index) for index, size in enumerate(block)]
    return Rows((dim(*first[1:]), *spatial, *image.shape[1 + len(block) :]))


def _unblocked(size: Dim, block: int, crops: Fixed, index: int) -> Dim:
    whole = number(size)
    if whole is None or crops.constant is None:
        return unknown()
    return dim(whole * block - int(crops.constant[index].sum()))
