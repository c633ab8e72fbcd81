"""
What is known of a tensor before a request comes.

```
Rows      row i depends on row i of the inputs alone, not on how many there are
Fixed     the same for all requests that may run together
Sizes     whole numbers that may have the number of rows as a factor: a shape, or a part of one
Variable  the handle of one
Table     the handle of one
Items     a list of tensors, as a loop over time keeps them
Coupled   anything else: `origin` is the operation that makes it so
```
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from serving.protocol.tensors import Array
from serving.runtime.row_independence.dims import (
    ONE,
    Dim,
    NotProven,
    Shape,
    dim,
    equal,
    has_batch,
    number,
    unknown,
)

MAX_ELEMENTS = 64


@dataclass(frozen=True, slots=True)
class Origin:
    """An operation of the graph."""

    name: str
    operation: str

    def __str__(self) -> str:
        return f"{self.name} ({self.operation})"


@dataclass(frozen=True, slots=True)
class Rows:
    """A tensor with the batch as a factor of one dimension; `shape` says of which."""

    shape: Shape

    @property
    def axis(self) -> int:
        """The dimension that the batch is a factor of."""
        return next(axis for axis, size in enumerate(self.shape) if has_batch(size))

    @property
    def rank(self) -> int:
        return len(self.shape)


@dataclass(frozen=True, slots=True)
class Fixed:
    """A tensor that is the same for all; its shape, where it is known, and its value, where it is small and known."""

    shape: Shape | None = None
    constant: Array | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Sizes:
    """A vector of whole numbers, or a single one; None is an element that is fixed and otherwise unknown."""

    elements: tuple[Dim | None, ...]
    is_scalar: bool = False

    @property
    def is_fixed(self) -> bool:
        return not any(has_batch(element) for element in self.elements if element is not None)

    @property
    def shape(self) -> Shape:
        return () if self.is_scalar else (dim(len(self.elements)),)

    @property
    def integers(self) -> tuple[int, ...] | None:
        """The elements, where all of them are plain numbers."""
        numbers = [None if element is None else number(element) for element in self.elements]
        return None if None in numbers else tuple(each for each in numbers if each is not None)


@dataclass(frozen=True, slots=True)
class Variable:
    """The handle of a variable of this shape."""

    shape: Shape | None


@dataclass(frozen=True, slots=True)
class Table:
    """The handle of a table that has one value for a key."""


@dataclass(frozen=True, slots=True)
class Items:
    """A list of so many tensors of one kind; no item is known as long as none has been set."""

    length: Dim
    wanted: tuple[Dim | None, ...] | None
    """the shape that the list asks of its items, -1 for any size; None for any shape"""
    item: Rows | Fixed | None = None


@dataclass(frozen=True, slots=True)
class Coupled:
    """A tensor that may depend on all rows, or on how many there are."""

    origin: Origin
    is_scalar: bool = False
    """whether it is known to be one number"""
    holds_for_all: bool = False
    """whether it is one boolean, true where something holds for every row, so for a run if for all requests in it"""
    at_least: int | None = None
    """no element is less"""
    at_most: int | None = None
    """no element is more"""


Value = Rows | Fixed | Sizes | Variable | Table | Items | Coupled
Tensor = Rows | Fixed


def is_fixed(value: Value) -> bool:
    return isinstance(value, (Fixed, Variable, Table)) or (isinstance(value, Sizes) and value.is_fixed)


def tensor(value: Value) -> Tensor:
    """
    The value as one that rows can be computed with.

    Raises:
        NotProven: It is none.
    """
    if isinstance(value, (Rows, Fixed)):
        return value
    if isinstance(value, Sizes) and value.is_fixed:
        return Fixed(value.shape)
    raise NotProven


def rows(value: Value) -> Rows:
    """
    The value, if it has rows.

    Raises:
        NotProven: It has none.
    """
    if not isinstance(value, Rows):
        raise NotProven
    return value


def fixed(value: Value) -> Fixed:
    """
    The value, if it is fixed.

    Raises:
        NotProven: It is not.
    """
    found = tensor(value)
    if not isinstance(found, Fixed):
        raise NotProven
    return found


def shape_of(value: Value) -> Shape:
    """
    The shape of a tensor.

    Raises:
        NotProven: It is not known.
    """
    shape = value.shape if isinstance(value, Sizes) else tensor(value).shape
    if shape is None:
        raise NotProven
    return shape


def elements_of(value: Value) -> tuple[Dim | None, ...]:
    """
    The elements of a vector, or the one of a scalar.

    Raises:
        NotProven: It is neither, of whole numbers.
    """
    if not isinstance(value, Sizes):
        raise NotProven
    return value.elements


def integers(value: Value) -> tuple[int, ...]:
    """
    The elements of a vector, or the one of a scalar, that the graph names.

    Raises:
        NotProven: It names none.
    """
    found = value.integers if isinstance(value, Sizes) else None
    if found is None:
        raise NotProven
    return found


def integer(value: Value) -> int:
    """
    The one whole number that the graph names.

    Raises:
        NotProven: It names none, or more.
    """
    found = integers(value)
    if len(found) != 1:
        raise NotProven
    return found[0]


def with_shape(shape: Sequence[Dim]) -> Tensor:
    """
    A tensor of this shape; it has rows where the batch is a factor.

    Raises:
        NotProven: The batch is a factor more than once.
    """
    batches = [size for size in shape if has_batch(size)]
    if not batches:
        return Fixed(tuple(shape))
    if len(batches) > 1 or sum(not isinstance(each, int) and has_batch((each,)) for each in batches[0]) > 1:
        raise NotProven
    return Rows(tuple(shape))


def constant(array: Array) -> Sizes | Fixed:
    """A value that the graph names."""
    if array.ndim <= 1 and array.size <= MAX_ELEMENTS and array.dtype.kind in "iu":
        return Sizes(tuple(dim(int(each)) for each in array.ravel()), array.ndim == 0)
    return Fixed(tuple(dim(size) for size in array.shape), array if array.size <= MAX_ELEMENTS else None)


def joined(one: Value, other: Value) -> Value:
    """
    What is known of a tensor that is one or the other, whichever it is being the same for all requests.

    It is `one` itself where that says enough.

    Raises:
        NotProven: Nothing is known.
    """
    if isinstance(one, Coupled) or isinstance(other, Coupled):
        return one if isinstance(one, Coupled) else other
    if isinstance(one, Items) and isinstance(other, Items):
        return _joined_items(one, other)
    if isinstance(one, Sizes) and isinstance(other, Sizes):
        return one if one == other else _joined_sizes(one, other)
    if isinstance(one, (Variable, Table)):
        if one != other:
            raise NotProven
        return one
    first, second = tensor(one), tensor(other)
    if type(first) is not type(second):
        raise NotProven
    shape = _joined_shape(first.shape, second.shape)
    if shape is first.shape and (isinstance(one, Rows) or (isinstance(one, Fixed) and one.constant is None)):
        return one
    if isinstance(first, Fixed):
        return Fixed(shape)
    if shape is None:
        raise NotProven
    return Rows(shape)


def _joined_items(one: Items, other: Items) -> Items:
    if not equal(one.length, other.length) or one.wanted != other.wanted:
        raise NotProven
    if one.item is None or other.item is None:
        return one if other.item is None else other
    item = joined(one.item, other.item)
    if not isinstance(item, (Rows, Fixed)):
        raise NotProven
    return one if item is one.item else Items(one.length, one.wanted, item)


def _joined_sizes(one: Sizes, other: Sizes) -> Value:
    if len(one.elements) != len(other.elements) or one.is_scalar != other.is_scalar:
        return joined(tensor(one), tensor(other))
    found: list[Dim | None] = []
    for first, second in zip(one.elements, other.elements, strict=True):
        if first == second:
            found.append(first)
        elif any(each is not None and has_batch(each) for each in (first, second)):
            raise NotProven
        else:
            found.append(None)
    return Sizes(tuple(found), one.is_scalar)


def _joined_shape(one: Shape | None, other: Shape | None) -> Shape | None:
    """The shape of what has one or the other; `one` itself where they are the same."""
    if one is None or other is None or len(one) != len(other):
        return None
    if all(equal(first, second) for first, second in zip(one, other, strict=True)):
        return one
    if any(has_batch(first) and first != second for first, second in zip(one, other, strict=True)):
        return None
    return tuple(first if equal(first, second) else unknown() for first, second in zip(one, other, strict=True))


def broadcast(shapes: Sequence[Shape]) -> Shape:
    """
    The shape of an operation of these, element by element.

    Raises:
        NotProven: The rows of one may meet something else than the same rows of another.
    """
    rank = max(len(shape) for shape in shapes)
    aligned = [(ONE,) * (rank - len(shape)) + shape for shape in shapes]
    return tuple(_broadcast_dim(list(sizes)) for sizes in zip(*aligned, strict=True))


def _broadcast_dim(sizes: list[Dim]) -> Dim:
    others = [size for size in sizes if size != ONE]
    if not others:
        return ONE
    first = others[0]
    if any(has_batch(size) for size in others):
        if any(size != first for size in others):
            raise NotProven
        return first
    numbers = [number(size) for size in others]
    known = next((size for size, known in zip(others, numbers, strict=True) if known is not None), None)
    if known is not None:
        return known
    return first if all(equal(size, first) for size in others) else unknown()


def as_sizes(value: Value) -> Sizes | None:
    """A vector or a scalar as one of whole numbers, which may be unknown; None where it is neither."""
    if isinstance(value, Sizes):
        return value
    shape = value.shape if isinstance(value, Fixed) else None
    if shape is None or len(shape) > 1:
        return None
    count = number(shape[0]) if shape else 1
    return None if count is None else Sizes((None,) * count, is_scalar=not shape)


def length_of(value: Value) -> Dim:
    """
    A whole number that the batch has no part in, as a size.

    Raises:
        NotProven: It has.
    """
    element = value.elements[0] if isinstance(value, Sizes) and len(value.elements) == 1 else None
    if element is not None and not has_batch(element):
        return element
    fixed(value)
    return unknown()


def is_scalar(value: Value) -> bool:
    """Whether it is known to be one element, without any dimension."""
    if isinstance(value, (Coupled, Sizes)):
        return value.is_scalar
    return isinstance(value, Fixed) and value.shape == ()
