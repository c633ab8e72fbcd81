"""The commands that make a version, `hotswap train` and `hotswap promote`, and the one that begins a recipe."""

from __future__ import annotations

import dataclasses
import json
import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Unpack

import typer

from flows.commands import presentation
from flows.commands.edges import plain_settings, show
from flows.commands.options import Json, Verbose
from flows.console import progress
from flows.parameters import JudgingRecipe, PromoteParameters, RecipeName, TrainParameters, spelled_out
from flows.tables.options import titled

if TYPE_CHECKING:
    from flows.promotion_run import TrainOutcome

EXIT_REJECTED = 3
EXIT_SANDBOX_REJECTED = 4

app = typer.Typer()


@app.command()
@spelled_out
def train(
    recipe: RecipeName = "iris",
    *,
    verbose: Verbose = False,
    as_json: Json = False,
    **parameters: Unpack[TrainParameters],
) -> int:
    """Train, judge, record, and promote what passes the gate."""
    with _flow_shown(f"training {titled(recipe, parameters)}"):
        from flows.local import launch

        outcome = launch.train(plain_settings(), recipe, **parameters)
    return _show_outcome(outcome, verbose, as_json)


@app.command()
@spelled_out
def promote(
    recipe: JudgingRecipe,
    *,
    verbose: Verbose = False,
    as_json: Json = False,
    **parameters: Unpack[PromoteParameters],
) -> int:
    """
    Judge a model that is there already, and promote what passes.

    It is held against the same rows and thresholds as one that was just trained.
    """
    with _flow_shown(f"promoting a model of {recipe}"):
        from flows.local import launch

        outcome = launch.promote(plain_settings(), recipe, **parameters)
    return _show_outcome(outcome, verbose, as_json)


@app.command()
def init(
    name: Annotated[str, typer.Argument(help="Of the recipe, its module and its model.")],
    kind: Annotated[
        str, typer.Option(autocompletion=_kinds, help="table, image, text, regression, several-inputs or blank.")
    ] = "blank",
    as_json: Json = False,
) -> None:
    """Write a recipe to begin with, and its test, here."""
    from flows.recipes.beginning import begin

    files = [file.name for file in begin(name, kind, Path.cwd())]
    text = f"{', '.join(files)} are written: `pytest test_{name}.py` tries it, `hotswap train {name}.py` makes it live."
    show({"files": files}, text, as_json)


def _kinds(incomplete: str) -> list[str]:
    from flows.recipes.beginning import KINDS

    return [kind for kind in KINDS if kind.startswith(incomplete)]


def _flow_shown(first: str) -> AbstractContextManager[Any]:
    # A failure arrives here as an exception and is reported once, so Prefect's own report of it is left out.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    return progress.shown(first)


def _show_outcome(outcome: TrainOutcome, verbose: bool, as_json: bool) -> int:
    """The exit code."""
    if as_json:
        print(json.dumps(dataclasses.asdict(outcome)))
    else:
        presentation.show_outcome(outcome, _example(outcome), verbose)
    return {"passed": 0, "sandbox rejected": EXIT_SANDBOX_REJECTED}.get(outcome.decision, EXIT_REJECTED)


def _example(outcome: TrainOutcome) -> str:
    """A row that the new version can be asked."""
    from flows.prediction.named_values import example
    from serving.repository.store import Repository

    if outcome.version is None:
        return ""
    return example(Repository(plain_settings().models_repo), outcome.model, outcome.version)
