"""What a model that is there already is judged by: a recipe, held-out rows in a file, or nothing, and then why."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.recipes import Recipe
from flows.recipes.finding import UnknownRecipe, find_recipe
from flows.recipes.without import without_recipe
from flows.tables.options import UnusableTable
from serving.protocol.errors import HotswapError
from serving.repository.names import validate_model_name

TASKS = ("classification", "regression")


class NoEvidence(HotswapError):
    """It is not said what a model is to be judged by."""


@dataclass(frozen=True, slots=True)
class HoldOut:
    """A file of rows that the model has not been trained on."""

    csv: Path
    """CSV or Parquet"""
    target: str
    task: str | None = None
    """one of `TASKS`; else the target and the answers decide"""


@dataclass(frozen=True, slots=True)
class Evidence:
    """One of the three."""

    recipe: Recipe
    """where there is none, one that only has the model's name and the thresholds of all models"""
    hold_out: HoldOut | None = None
    unevaluated: str | None = None
    """why the model is not evaluated"""


def evidence_of(name: str, parameters: Mapping[str, Any]) -> Evidence:
    """
    What the parameters of a promotion name.

    Args:
        name: Of the recipe; of the model, where rows are in a file or it is not evaluated.
        parameters: Of the flow.

    Raises:
        NoEvidence: They name none of the three, or more than one.
        UnusableTable: The file comes without its target.
    """
    csv, target, task, why = (parameters.get(each) for each in ("csv", "target", "task", "unevaluated"))
    if csv is None and (target or task):
        raise UnusableTable(f"--{'target' if target else 'task'} is about held-out rows: name their file by --csv FILE")
    if csv is not None and why is not None:
        raise NoEvidence("A model is judged by the rows of --csv, or --unevaluated says why not: leave one out")
    if why is not None:
        return Evidence(without_recipe(validate_model_name(name)), unevaluated=why)
    if csv is None:
        return Evidence(_recipe(name))
    if not target:
        raise UnusableTable(f"Name the column of {csv} that the model predicts, by --target COLUMN")
    if task not in (None, *TASKS):
        raise UnusableTable(f"--task is {' or '.join(TASKS)}, not {task!r}")
    return Evidence(without_recipe(validate_model_name(name)), HoldOut(Path(csv), target, task))


def judged_by(name: str, parameters: Mapping[str, Any]) -> str:
    """The same as a shell takes it: the recipe, or the model and its rows."""
    said = [(each, parameters.get(each)) for each in ("csv", "target", "task", "unevaluated")]
    options = [word for each, value in said if value is not None for word in (f"--{each}", str(value))]
    return shlex.join([name, *options])


def _recipe(name: str) -> Recipe:
    try:
        return find_recipe(name)
    except UnknownRecipe as exc:
        raise NoEvidence(
            f"{exc}. A model without a recipe is judged by held-out rows, --csv FILE --target COLUMN, or not at all, "
            "--unevaluated REASON"
        ) from exc
