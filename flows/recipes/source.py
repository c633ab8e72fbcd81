"""The file that a recipe is written in."""

from __future__ import annotations

import inspect
from pathlib import Path

from flows.recipes import Recipe


def source_file(recipe: Recipe) -> Path | None:
    """Where the recipe's `build` is written; None where that is in no file."""
    try:
        found = inspect.getsourcefile(inspect.unwrap(recipe.build))
    except TypeError:
        return None
    return Path(found) if found and Path(found).is_file() else None
