"""
Sizes that are not known before a request comes, and what can be said of them all the same.

A dimension is the product of its factors, in the order in which they are laid out in memory: ``(BATCH, 5)`` is a batch
of rows of five, one row after the other, and ``(5, BATCH)`` five times the batch. Which of the two it is decides
whether the rows of two tensors lie side by side, so the order is never given up where the batch is a factor.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod


class NotProven(Exception):
    """An operation may make one row depend on another, or on how many there are."""


class Symbol:
    """A size that is the same for all requests that may run together, and for their run."""

    __slots__ = ()


class _Batch(Symbol):
    """The number of rows, at least 1: the one size that is not."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "BATCH"


BATCH = _Batch()

Factor = int | Symbol
Dim = tuple[Factor, ...]
Shape = tuple[Dim, ...]
ONE: Dim = ()


def dim(*factors: Factor) -> Dim:
    """The product of these, as short as it can be written without a change of order."""
    found: list[Factor] = []
    for factor in factors:
        if isinstance(factor, int) and found and isinstance(found[-1], int):
            found[-1] *= factor
        elif factor != 1:
            found.append(factor)
    return tuple(factor for factor in found if factor != 1)


def unknown() -> Dim:
    """A size of which nothing is known but that the batch has no part in it."""
    return (Symbol(),)


def size_of(size: int) -> Dim:
    """The size that a signature or an attribute gives; -1 is unknown."""
    return unknown() if size < 0 else dim(size)


def has_batch(size: Dim) -> bool:
    return BATCH in size


def number(size: Dim) -> int | None:
    """The size, where it is a plain number."""
    if not size:
        return 1
    return size[0] if len(size) == 1 and isinstance(size[0], int) else None


def equal(one: Dim, other: Dim) -> bool:
    """Whether these are always the same; where the batch is a factor, in the same order too."""
    if has_batch(one) or has_batch(other):
        return one == other
    return same_product(one, other)


def same_product(one: Dim, other: Dim) -> bool:
    return coefficient(one) == coefficient(other) and _symbols(one) == _symbols(other)


def coefficient(size: Dim) -> int:
    return prod(factor for factor in size if isinstance(factor, int))


def product(sizes: Iterable[Dim]) -> Dim:
    return dim(*(factor for size in sizes for factor in size))


def quotient(whole: Dim, part: Dim) -> Dim:
    """
    What `part` must be multiplied with.

    Raises:
        NotProven: It need not divide the whole.
    """
    symbols = [factor for factor in whole if not isinstance(factor, int)]
    for factor in part:
        if not isinstance(factor, int):
            if factor not in symbols:
                raise NotProven
            symbols.remove(factor)
    divisor = coefficient(part)
    if divisor <= 0 or coefficient(whole) <= 0 or coefficient(whole) % divisor:
        raise NotProven
    return dim(*symbols, coefficient(whole) // divisor)


def regrouped(shape: Shape, sizes: Sequence[Dim]) -> Shape:
    """
    The same elements in the same order under dimensions of these sizes.

    Raises:
        NotProven: The sizes do not say where the batch goes.
    """
    factors = list(product(shape))
    found = []
    for size in sizes:
        taken: list[Factor] = []
        while not same_product(dim(*taken), size):
            taken.append(_take(factors, quotient(size, dim(*taken))))
        found.append(dim(*taken))
    if dim(*factors) != ONE:
        raise NotProven
    return tuple(found)


def _take(factors: list[Factor], missing: Dim) -> Factor:
    """The next factor, of a number only as much as is missing."""
    if not factors:
        raise NotProven
    factor = factors.pop(0)
    if isinstance(factor, int):
        wanted = coefficient(missing)
        if factor > wanted and wanted > 1 and factor % wanted == 0:
            factors.insert(0, factor // wanted)
            return wanted
    return factor


def _symbols(size: Dim) -> list[int]:
    return sorted(id(factor) for factor in size if not isinstance(factor, int))
