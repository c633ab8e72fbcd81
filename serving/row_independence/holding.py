"""Operations that hold something: constants, variables, tables, lists of tensors, and what is read out of examples."""

from __future__ import annotations

from collections.abc import Sequence

from tensorflow.python.framework import tensor_util

from serving.row_independence.dims import Dim, NotProven, Shape, dim, has_batch, size_of
from serving.row_independence.rules import Node, Outputs, rule
from serving.row_independence.shaping import refuse_batch
from serving.row_independence.values import (
    Fixed,
    Items,
    Rows,
    Sizes,
    Table,
    Value,
    Variable,
    constant,
    fixed,
    is_fixed,
    joined,
    length_of,
    rows,
    shape_of,
    tensor,
    with_shape,
)

_MAX_CONSTANT_BYTES = 512


@rule("Const")
def _constant(node: Node, inputs: Sequence[Value]) -> Outputs:
    proto = node.message("value").tensor
    sizes = [each.size for each in proto.tensor_shape.dim]
    if proto.ByteSize() > _MAX_CONSTANT_BYTES or any(size > _MAX_CONSTANT_BYTES for size in sizes):
        return Fixed(tuple(dim(size) for size in sizes))
    return constant(tensor_util.MakeNdarray(proto))


@rule("NoOp")
def _nothing(node: Node, inputs: Sequence[Value]) -> Outputs:
    return []


@rule("PlaceholderWithDefault")
def _default(node: Node, inputs: Sequence[Value]) -> Outputs:
    return fixed(inputs[0])


@rule("VarHandleOp")
def _variable(node: Node, inputs: Sequence[Value]) -> Outputs:
    return Variable(_declared_shape(node))


@rule("ReadVariableOp")
def _variable_value(node: Node, inputs: Sequence[Value]) -> Outputs:
    if not isinstance(inputs[0], Variable):
        raise NotProven
    return Fixed(inputs[0].shape)


@rule("VariableV2", "Variable")
def _reference(node: Node, inputs: Sequence[Value]) -> Outputs:
    return Fixed(_declared_shape(node))


def _declared_shape(node: Node) -> Shape | None:
    attribute = node.message("shape")
    if attribute is None or attribute.shape.unknown_rank:
        return None
    return tuple(size_of(each.size) for each in attribute.shape.dim)


@rule("HashTable", "HashTableV2", "MutableHashTable", "MutableHashTableV2")
def _table(node: Node, inputs: Sequence[Value]) -> Outputs:
    return Table()


@rule("LookupTableFind", "LookupTableFindV2")
def _find(node: Node, inputs: Sequence[Value]) -> Outputs:
    table, keys, default = inputs
    fixed(default)
    if not isinstance(table, Table):
        raise NotProven
    found = tensor(keys)
    return found if isinstance(found, Rows) else Fixed(found.shape)


@rule("LookupTableSize", "LookupTableSizeV2")
def _table_size(node: Node, inputs: Sequence[Value]) -> Outputs:
    return Fixed(())


@rule("TensorListReserve")
def _reserve(node: Node, inputs: Sequence[Value]) -> Outputs:
    element_shape, count = inputs
    _check_element(element_shape, None)
    return Items(length_of(count))


@rule("TensorListFromTensor")
def _list(node: Node, inputs: Sequence[Value]) -> Outputs:
    found = tensor(inputs[0])
    length, *element = shape_of(found)
    refuse_batch(found, 0)
    item = with_shape(element)
    _check_element(inputs[1], item)
    return Items(length, item)


@rule("TensorListSetItem")
def _set_item(node: Node, inputs: Sequence[Value]) -> Outputs:
    items, index, item = inputs
    fixed(index)
    if not isinstance(items, Items):
        raise NotProven
    return joined(items, Items(items.length, tensor(item)))


@rule("TensorListGetItem")
def _item(node: Node, inputs: Sequence[Value]) -> Outputs:
    items, index, element_shape = inputs
    fixed(index)
    if not isinstance(items, Items) or items.item is None:
        raise NotProven
    _check_element(element_shape, items.item)
    return items.item


@rule("TensorListStack")
def _stack(node: Node, inputs: Sequence[Value]) -> Outputs:
    items, element_shape = inputs
    if not isinstance(items, Items) or items.item is None:
        raise NotProven
    _check_element(element_shape, items.item)
    return with_shape([items.length, *shape_of(items.item)])


@rule("TensorListLength")
def _list_length(node: Node, inputs: Sequence[Value]) -> Outputs:
    if not isinstance(inputs[0], Items):
        raise NotProven
    return Sizes((inputs[0].length,), is_scalar=True)


def _check_element(element_shape: Value, item: Rows | Fixed | None) -> None:
    """Refuse a list that asks for a batch of one size: it might take the run of several requests, and not one alone."""
    if not isinstance(element_shape, Sizes):
        raise NotProven
    if element_shape.is_scalar:  # any shape
        return
    wanted = element_shape.elements
    if not isinstance(item, Rows):
        if any(size is not None and has_batch(size) for size in wanted) and item is not None:
            raise NotProven
        return
    size = wanted[item.axis] if len(wanted) == item.rank else None
    if size not in ((-1,), item.shape[item.axis]):
        raise NotProven


@rule("ParseExampleV2", "ParseExample")
def _parse_examples(node: Node, inputs: Sequence[Value]) -> Outputs:
    """Features of a fixed length are rows; those of any length would be as long as the longest of all rows."""
    serialized = rows(inputs[0])
    counts = [node.integer(name) for name in ("num_sparse", "Nsparse")]
    ragged = node.message("ragged_value_types")
    if any(counts) or (ragged is not None and ragged.list.type) or serialized.rank != 1:
        raise NotProven
    if not all(map(is_fixed, inputs[1:])):
        raise NotProven
    return [Rows((serialized.shape[0], *_fixed_length(shape))) for shape in node.message("dense_shapes").list.shape]


def _fixed_length(shape: object) -> list[Dim]:
    sizes = [each.size for each in shape.dim]  # type: ignore[attr-defined]
    if any(size < 0 for size in sizes) or shape.unknown_rank:  # type: ignore[attr-defined]
        raise NotProven
    return [dim(size) for size in sizes]
