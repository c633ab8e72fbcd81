"""The commands that make a version: `hotswap train` and `hotswap promote`."""

from __future__ import annotations

import dataclasses
import json
import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.commands import presentation
from flows.commands.edges import plain_settings
from flows.commands.options import (
    AllowBreaking,
    Bake,
    Json,
    JudgingRecipe,
    MinAccuracy,
    PromotionLabel,
    Reason,
    Recipe,
    Verbose,
)
from flows.console import progress

if TYPE_CHECKING:
    from flows.promotion_run import TrainOutcome

EXIT_REJECTED = 3
EXIT_SANDBOX_REJECTED = 4

app = typer.Typer()


@app.command()
def train(
    recipe: Recipe = "iris",
    seed: Annotated[int, typer.Option(help="Of the weights and of the order of the rows.")] = 42,
    epochs: Annotated[int | None, typer.Option(help="How often every row is seen; else the recipe decides.")] = None,
    min_accuracy: MinAccuracy = None,
    allow_breaking: AllowBreaking = False,
    bake: Bake = 0.0,
    verbose: Verbose = False,
    label: PromotionLabel = "stable",
    reason: Reason = None,
    as_json: Json = False,
) -> int:
    """Train, judge, record, and promote what passes the gate."""
    with _flow_shown(f"training {recipe}"):
        from flows.local import launch

        outcome = launch.train(
            plain_settings(), recipe, seed, epochs, min_accuracy, allow_breaking, bake, reason, label
        )
    return _show_outcome(outcome, verbose, as_json)


@app.command()
def promote(
    recipe: JudgingRecipe,
    run: Annotated[str | None, typer.Option(metavar="RUN_ID", help="The MLflow run that keeps the model.")] = None,
    saved_model: Annotated[
        Path | None, typer.Option(metavar="DIRECTORY", help="A SavedModel from elsewhere instead.")
    ] = None,
    version: Annotated[
        int | None, typer.Option(metavar="NUMBER", help="A published version, such as a canary, to be made stable.")
    ] = None,
    min_accuracy: MinAccuracy = None,
    allow_breaking: AllowBreaking = False,
    bake: Bake = 0.0,
    verbose: Verbose = False,
    label: PromotionLabel = "stable",
    reason: Reason = None,
    as_json: Json = False,
) -> int:
    """
    Judge a model that is there already, and promote what passes.

    It is held against the same rows and thresholds as one that was just trained.
    """
    with _flow_shown(f"promoting a model of {recipe}"):
        from flows.local import launch

        outcome = launch.promote(
            plain_settings(), recipe, run, saved_model, min_accuracy, allow_breaking, bake, reason, label, version
        )
    return _show_outcome(outcome, verbose, as_json)


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
    from flows.prediction.rows import written
    from serving.repository.store import Repository

    if outcome.version is None:
        return ""
    return written(Repository(plain_settings().models_repo).stamp(outcome.model, outcome.version).golden)
