"""The data of a recipe: checked, split into rows to train on and rows held out, and identified by a digest."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flows.recipes import Recipe
from flows.user_code import of_recipe
from serving.protocol.errors import HotswapError

_SPLIT_SEED = 42  # Fixed: versions are comparable only on the same held-out rows, which no training may see.


class UnusableData(HotswapError):
    """This data cannot be trained on."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Examples float32 [rows, features] and their classes int64 [rows]."""

    examples: NDArray[np.float32]
    classes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.classes)


@dataclass(frozen=True, slots=True)
class Dataset:
    """A recipe's rows, split; `digest` is the SHA-256 of all of them with their names."""

    train: Rows
    test: Rows
    feature_names: tuple[str, ...]
    class_names: tuple[str, ...]
    digest: str


def load_dataset(recipe: Recipe) -> Dataset:
    """
    Load, check and split the data of `recipe`.

    Raises:
        RecipeFailed: Its own code failed.
        UnusableData: The data has no rows, NaN, one class, or another shape than the recipe says.
    """
    with of_recipe(f"The data of {recipe.name!r} cannot be loaded"):
        examples, classes = recipe.load()
    rows = check(examples, classes, recipe)
    train, test = split(rows)
    names = (recipe.feature_names, recipe.class_names)
    return Dataset(train, test, *names, digest=_digest(rows, *names))


def check(examples: NDArray[Any], classes: NDArray[Any], recipe: Recipe) -> Rows:
    """
    The rows, when a classifier can be trained and judged on them.

    Raises:
        UnusableData: They cannot; the message says why and what to do.
    """
    name = recipe.name
    examples, classes = np.asarray(examples), np.asarray(classes)
    if not examples.size or not classes.size:
        raise UnusableData(f"The data of {name!r} has no rows: check what its load() returns")
    if examples.ndim != 2 or examples.shape[1] != len(recipe.feature_names) or classes.shape != examples.shape[:1]:
        raise UnusableData(
            f"The data of {name!r} has shapes {examples.shape} and {classes.shape}: "
            f"expected [rows, {len(recipe.feature_names)}] and [rows]"
        )
    try:
        examples = examples.astype(np.float32)
    except (TypeError, ValueError) as exc:
        raise UnusableData(f"The data of {name!r} is not numbers: {exc}") from exc
    if bad := int(np.count_nonzero(~np.isfinite(examples).all(axis=1))):
        raise UnusableData(f"The data of {name!r} has NaN or infinite values in {bad} rows: remove or fill them first")
    if classes.dtype.kind not in "iu" or classes.min() < 0 or classes.max() >= len(recipe.class_names):
        raise UnusableData(f"The classes of {name!r} must be integers from 0 to {len(recipe.class_names) - 1}")
    counts = np.bincount(classes.astype(np.int64), minlength=len(recipe.class_names))
    if np.count_nonzero(counts) < 2:
        raise UnusableData(f"The data of {name!r} has one class only: a classifier needs at least two")
    if scarce := [recipe.class_names[i] for i in np.flatnonzero(counts < 2)]:
        raise UnusableData(f"The data of {name!r} needs at least two rows of each class, and has too few of {scarce}")
    return Rows(examples, classes.astype(np.int64))


def split(rows: Rows, test_share: float = 0.2) -> tuple[Rows, Rows]:
    """Hold out `test_share` of each class, and at least one row of it: always the same rows."""
    random = np.random.default_rng(_SPLIT_SEED)
    held_out = np.zeros(len(rows), dtype=bool)
    for each in np.unique(rows.classes):
        members = random.permutation(np.flatnonzero(rows.classes == each))
        held_out[members[: max(1, round(test_share * len(members)))]] = True
    return _take(rows, ~held_out), _take(rows, held_out)


def _take(rows: Rows, mask: NDArray[np.bool_]) -> Rows:
    return Rows(rows.examples[mask], rows.classes[mask])


def _digest(rows: Rows, *names: tuple[str, ...]) -> str:
    whole = hashlib.sha256(repr((names, rows.examples.shape)).encode())
    whole.update(rows.examples.astype("<f4").tobytes())
    whole.update(rows.classes.astype("<i8").tobytes())
    return whole.hexdigest()
