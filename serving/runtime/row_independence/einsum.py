"""The shape of an Einstein summation, where rows meet no other rows."""

from __future__ import annotations

from collections.abc import Sequence

from serving.runtime.row_independence.dims import Dim, NotProven, Shape, has_batch, number
from serving.runtime.row_independence.values import broadcast


def contracted(equation: str, shapes: Sequence[Shape]) -> list[Dim]:
    """
    The shape that an equation gives.

    Raises:
        NotProven: It sums over the batch, takes a diagonal of it, or has no explicit output.
    """
    left, arrow, output = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow or len(terms) != len(shapes):
        raise NotProven
    sizes: dict[str, list[Dim]] = {}
    ellipses: list[Shape] = []
    for term, shape in zip(terms, shapes, strict=True):
        _read(term, shape, sizes, ellipses)
    known = {label: _one(found) for label, found in sizes.items()}
    if any(has_batch(size) and output.count(label) != 1 for label, size in known.items()):
        raise NotProven
    hidden = broadcast(ellipses) if ellipses else ()
    if any(map(has_batch, hidden)) and "..." not in output:
        raise NotProven
    before, dots, after = output.partition("...")
    return [*(known[label] for label in before), *(hidden if dots else ()), *(known[label] for label in after)]


def _read(term: str, shape: Shape, sizes: dict[str, list[Dim]], ellipses: list[Shape]) -> None:
    before, dots, after = term.partition("...")
    labels = before + after
    if len(labels) > len(shape) or (not dots and len(labels) < len(shape)):
        raise NotProven
    if len(set(labels)) < len(labels):
        raise NotProven
    end = len(shape) - len(after)
    for label, size in [*zip(before, shape, strict=False), *zip(after, shape[end:], strict=True)]:
        sizes.setdefault(label, []).append(size)
    if dots:
        ellipses.append(shape[len(before) : end])


def _one(sizes: list[Dim]) -> Dim:
    """The size of a label; where the batch has a part, all must be the same."""
    if any(map(has_batch, sizes)) and any(size != sizes[0] for size in sizes):
        raise NotProven
    return next((size for size in sizes if number(size) is not None), sizes[0])
