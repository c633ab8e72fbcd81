"""What is asked of a table, and whether a training is of a table or of a recipe. It imports nothing that takes time."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serving.protocol.errors import HotswapError
from serving.repository.names import validate_model_name

if TYPE_CHECKING:
    from flows.recipes import Recipe

_DEFAULT_RECIPE = "iris"


class UnusableTable(HotswapError):
    """This table cannot be trained on, or cannot be read."""


@dataclass(frozen=True, slots=True)
class TableOptions:
    """What is asked of a table."""

    csv: Path
    """CSV or Parquet"""
    target: str
    name: str | None = None
    """the model's; else it is called like the file"""
    task: str | None = None
    """"classification" or "regression"; else the values decide"""
    drop: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    time: str | None = None
    """the newest rows by this column are held out"""
    group: str | None = None
    """rows with one value of this column are on one side of the split"""
    test_share: float = 0.2
    positive: str | None = None
    """the class that counts as the positive one"""

    @property
    def model(self) -> str:
        """The model's name."""
        return validate_model_name(self.name or re.sub(r"[^A-Za-z0-9._-]+", "_", self.csv.stem).strip("._-") or "table")


def recipe_of(name: str, parameters: Mapping[str, Any]) -> Recipe:
    """
    The recipe called `name`, or that of the table ``csv``.

    Raises:
        UnknownRecipe: There is none.
        UnusableTable: The table cannot be trained on, or options of a table come without one.
    """
    if (options := table_options(parameters)) is None:
        from flows.recipes.finding import find_recipe

        return find_recipe(name)
    from flows.tables.making import table_recipe

    return table_recipe(options)


def table_options(parameters: Mapping[str, Any]) -> TableOptions | None:
    """
    What is asked of a table; None where none is given.

    Raises:
        UnusableTable: Options of a table come without one, or it comes without a target.
    """
    given: dict[str, Any] = {each.name: parameters.get(each.name) for each in fields(TableOptions)}
    given["test_share"] = given["test_share"] or 0.2
    if given["csv"] is None:
        if lonely := next((name for name, value in given.items() if value and name != "test_share"), None):
            raise UnusableTable(f"--{lonely} is about a table: name it by --csv FILE")
        return None
    if not given["target"]:
        raise UnusableTable(f"Name the column of {given['csv']} that is to be predicted, by --target COLUMN")
    given |= {"csv": Path(given["csv"]), "drop": tuple(given["drop"] or ()), "keep": tuple(given["keep"] or ())}
    return TableOptions(**given)


def titled(recipe: str, parameters: Mapping[str, Any]) -> str:
    """
    The name that a training shows: of the recipe, or of the table's model.

    Raises:
        UnusableTable: Both are given.
    """
    if (options := table_options(parameters)) is None:
        return recipe
    if recipe not in (_DEFAULT_RECIPE, options.model):
        raise UnusableTable(f"Either a recipe is trained, {recipe}, or a table, {options.csv}: leave one out")
    return options.model
