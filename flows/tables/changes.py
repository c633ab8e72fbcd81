"""
Next week's table, held against the one that the live version was trained on, before anything is trained.

A column that is gone, renamed or of another type ends the training: the model would have other inputs, or learn
nonsense. What has only moved is told in the gate.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from flows.tables.options import UnusableTable
from flows.tables.schema import MAX_CATEGORIES, ColumnSchema, Schema

_MISSING_JUMP = 0.1
_CLASS_JUMP = 0.1
_NEW_SHARE = 0.01


def check_table(before: Schema, now: Schema, allow_breaking: bool) -> tuple[str, ...]:
    """
    What has moved since the live version was trained, a sentence each.

    Raises:
        UnusableTable: The task, or a column that clients send, is another; `allow_breaking` allows what clients notice.
    """
    if before.task != now.task:
        raise UnusableTable(
            f"The target {now.target!r} makes a {now.task} now, and the live version is of a {before.task}: "
            f"add --task {before.task}, or train a model of another --name"
        )
    taken = {column.name: column for column in now.columns}
    for column in before.columns:
        if column.name not in taken and column.name not in now.left_out and not allow_breaking:
            raise UnusableTable(_gone(column, before, now))
        if column.name in taken:
            _check_type(column, taken[column.name])
    if not allow_breaking:
        _check_inputs(before, now)
    return tuple(_moved(before, now))


def _gone(column: ColumnSchema, before: Schema, now: Schema) -> str:
    known = {each.name for each in before.columns}
    alike = [each.name for each in now.columns if each.name not in known and _is_alike(column, each)]
    return (
        f"The table has no column {column.name!r}, which the live version was trained with: "
        + (f"if {alike[0]!r} is the same, rename it; " if alike else "bring it back; ")
        + "--allow-breaking trains without it"
    )


def _is_alike(before: ColumnSchema, now: ColumnSchema) -> bool:
    if before.type != now.type or before.kind != now.kind:
        return False
    if before.quantiles:
        return before.quantiles[1] <= now.quantiles[2] <= before.quantiles[3]
    return sum(share for word, share in now.categories.items() if word in before.categories) > 0.5


def _check_type(before: ColumnSchema, now: ColumnSchema) -> None:
    if before.type == now.type:
        return
    was, found = ("numbers", "texts") if before.type == "float32" else ("texts", "numbers")
    strange = next((word for word in now.categories if not _is_number(word)), None)
    example = f", such as {strange!r}" if strange is not None else ""
    raise UnusableTable(
        f"The column {before.name!r} has {found} now{example}, and the live version was trained with {was}: "
        "correct the column, or train a model of another --name"
    )


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _check_inputs(before: Schema, now: Schema) -> None:
    """Clients of the live version send its columns: a model that takes others would break them."""
    old, new = {each.name for each in before.columns}, {each.name for each in now.columns}
    if lost := sorted(old & set(now.left_out)):
        raise UnusableTable(
            f"The live version takes {_listed(lost)}, which this table would leave out: "
            f"add {' '.join(f'--keep {name!r}' for name in lost)}, or --allow-breaking"
        )
    if added := sorted(new - old):
        raise UnusableTable(
            f"The live version does not take {_listed(added)}, so its clients do not send it: "
            f"add {' '.join(f'--drop {name!r}' for name in added)}, or --allow-breaking"
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))


def _moved(before: Schema, now: Schema) -> Iterator[str]:
    taken = {column.name: column for column in now.columns}
    for old in before.columns:
        new = taken.get(old.name)
        if new is None:
            continue
        if abs(new.missing_share - old.missing_share) > _MISSING_JUMP:
            yield f"{old.name!r} is missing in {new.missing_share:.0%} of the rows, before in {old.missing_share:.0%}"
        yield from _new_categories(old, new)
    for name in before.class_shares.keys() | now.class_shares.keys():
        was, share = before.class_shares.get(name, 0.0), now.class_shares.get(name, 0.0)
        if abs(share - was) > _CLASS_JUMP:
            yield f"class {name!r} is {share:.0%} of the rows, before {was:.0%}"


def _new_categories(before: ColumnSchema, now: ColumnSchema) -> Iterator[str]:
    if not before.categories or len(before.categories) == MAX_CATEGORIES:
        return
    new = {word: share for word, share in now.categories.items() if word not in before.categories}
    if sum(new.values()) > _NEW_SHARE:
        where = f"{sum(new.values()):.0%} of the rows"
        yield f"{before.name!r} has new categories in {where}, such as {_listed([*new][:3])}"
