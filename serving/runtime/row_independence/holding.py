"""Operations that hold something: constants, variables, tables, lists of tensors, and what is read out of examples."""

from __future__ import annotations

from collections.abc import Sequence

from serving.protocol.tensors import decode
from serving.runtime.row_independence.dims import Dim, NotProven, Shape, dim, has_batch, size_of
from serving.runtime.row_independence.rules import Node, Outputs, rule
from serving.runtime.row_independence.shaping import refuse_batch
from serving.runtime.row_independence.values import (
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
    return constant(decode(proto))


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


@rule("EnsureShape")
def _ensured(node: Node, inputs: Sequence[Value]) -> Outputs:
    found, declared = tensor(inputs[0]), _declared_shape(node)
    if not isinstance(found, Rows) or declared is None:
        return found if isinstance(found, Rows) else Fixed(declared)
    sizes = node.message("shape").shape.dim
    if len(declared) != found.rank or sizes[found.axis].size >= 0:
        raise NotProven
    return found


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
    return Items(length_of(inputs[1]), _wanted(inputs[0]))


@rule("TensorListFromTensor")
def _list(node: Node, inputs: Sequence[Value]) -> Outputs:
    found = tensor(inputs[0])
    length, *element = shape_of(found)
    refuse_batch(found, 0)
    item, wanted = with_shape(element), _wanted(inputs[1])
    _check_item(wanted, item)
    return Items(length, wanted, item)


@rule("TensorListSetItem")
def _set_item(node: Node, inputs: Sequence[Value]) -> Outputs:
    items, index, value = inputs
    fixed(index)
    item = tensor(value)
    if not isinstance(items, Items):
        raise NotProven
    _check_item(items.wanted, item)
    return joined(items, Items(items.length, items.wanted, item))


@rule("TensorListGetItem")
def _item(node: Node, inputs: Sequence[Value]) -> Outputs:
    items, index, element_shape = inputs
    fixed(index)
    if not isinstance(items, Items) or items.item is None:
        raise NotProven
    _check_item(_wanted(element_shape), items.item)
    return items.item


@rule("TensorListStack")
def _stack(node: Node, inputs: Sequence[Value]) -> Outputs:
    items, element_shape = inputs
    if not isinstance(items, Items) or items.item is None:
        raise NotProven
    _check_item(_wanted(element_shape), items.item)
    return with_shape([items.length, *shape_of(items.item)])


@rule("TensorListLength")
def _list_length(node: Node, inputs: Sequence[Value]) -> Outputs:
    if not isinstance(inputs[0], Items):
        raise NotProven
    return Sizes((inputs[0].length,), is_scalar=True)


def _wanted(element_shape: Value) -> tuple[Dim | None, ...] | None:
    if not isinstance(element_shape, Sizes):
        raise NotProven
    return None if element_shape.is_scalar else element_shape.elements


def _check_item(wanted: tuple[Dim | None, ...] | None, item: Rows | Fixed) -> None:
    """Refuse a list that asks for a batch of one size: it might take the run of several requests, and not one alone."""
    if wanted is None:
        return
    sizes = shape_of(item)
    if len(wanted) != len(sizes):
        raise NotProven
    for asked, size in zip(wanted, sizes, strict=True):
        involved = has_batch(size) or (asked is not None and has_batch(asked))
        if involved and asked not in ((-1,), size):
            raise NotProven


@rule("ParseExampleV2", "ParseExample")
def _parse_examples(node: Node, inputs: Sequence[Value]) -> Outputs:
    """Features of a fixed length are rows; those of any length would be as long as the longest of all rows."""
    serialized = rows(inputs[0])
    counts = [node.integer(name) for name in ("num_sparse", "Nsparse")]
    ragged = node.message("ragged_value_types")
    if any(counts) or (ragged is not None and ragged.list.type) or serialized.rank != 1:
        raise NotProven
    if shape_of(inputs[1]) != ((0,),):  # names, one for each example
        raise NotProven
    if not all(map(is_fixed, inputs[1:])):
        raise NotProven
    return [Rows((serialized.shape[0], *_fixed_length(shape))) for shape in node.message("dense_shapes").list.shape]


def _fixed_length(shape: object) -> list[Dim]:
    sizes = [each.size for each in shape.dim]  # type: ignore[attr-defined]
    if any(size < 0 for size in sizes) or shape.unknown_rank:  # type: ignore[attr-defined]
        raise NotProven
    return [dim(size) for size in sizes]
