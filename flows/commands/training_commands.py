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
from flows.commands.edges import at_work, plain_settings, show
from flows.commands.options import Json, Model, Verbose
from flows.console import progress
from flows.journal import user
from flows.parameters import JudgingRecipe, PromoteParameters, Reason, RecipeName, TrainParameters, spelled_out
from flows.tables.options import titled

if TYPE_CHECKING:
    from flows.promotion_run import TrainOutcome

EXIT_REJECTED = 3
EXIT_SANDBOX_REJECTED = 4
EXIT_NOT_APPROVED = 7

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
def approve(
    model: Model,
    reject: Annotated[
        str | None, typer.Option(metavar="REASON", help="Why not: the version is taken out again.")
    ] = None,
    reason: Reason = None,
    as_json: Json = False,
) -> None:
    """Let the version that waits go live, or reject it."""
    with at_work(f"approving {model}") as settings:
        from flows.orchestration import approvals
        from flows.promotion import approval
        from flows.promotion.deployment import Deployment

        wait = approval.current(Deployment(settings, model))
        given = approvals.Answer(reject is None, user(), reject or reason or "")
        approvals.answer(wait.flow_run, wait.prefect, given)
    what = f"{model} version {wait.version}"
    approved = f"{what} is approved: it gets label {wait.label} once it has been verified again."
    text = approved if given.approved else f"{what} is rejected, and is taken out again."
    show({"model": model, "version": wait.version, "approved": given.approved, "by": given.by}, text, as_json)


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
    others = {"passed": 0, "sandbox rejected": EXIT_SANDBOX_REJECTED, "not approved": EXIT_NOT_APPROVED}
    return others.get(outcome.decision, EXIT_REJECTED)


def _example(outcome: TrainOutcome) -> str:
    """A row that the new version can be asked."""
    from flows.prediction.named_values import example
    from serving.repository.store import Repository

    if outcome.version is None:
        return ""
    return example(Repository(plain_settings().models_repo), outcome.model, outcome.version)
