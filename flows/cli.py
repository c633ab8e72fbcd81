"""
What can be done from the command line?

Data go to standard output, logs and errors to standard error. Everything heavy is imported by the command that needs
it, so that ``--help`` and ``predict`` answer at once.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from flows.commands import failures, presentation, report_commands
from flows.commands.edges import at_work, plain_settings, show
from flows.commands.options import (
    AllowBreaking,
    Bake,
    DryRun,
    EarlierVersion,
    Json,
    JudgingRecipe,
    Label,
    LabelledVersion,
    MinAccuracy,
    Model,
    PromotionLabel,
    PublishedVersion,
    Reason,
    Recipe,
    RetiredVersion,
    Verbose,
)
from flows.console import progress
from flows.local.interrupts import defer_sigint
from serving.protocol.redaction import redact_logs, redacted_output

if TYPE_CHECKING:
    from flows.promotion.change import Change
    from flows.promotion.deployment import Deployment
    from flows.train_and_promote import TrainOutcome

EXIT_USAGE = 2
EXIT_REJECTED = 3
EXIT_SANDBOX_REJECTED = 4
EXIT_INTERRUPTED = 130

app = typer.Typer(name="hotswap", rich_markup_mode=None)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"hotswap {version('hotswap')}")
        raise typer.Exit


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """
    Run one command and exit.

    0 done, 1 error, 2 usage, 3 not passed by the gate, 4 sandbox rejected, 5 not verified and undone, 6 up already.
    """
    with defer_sigint():
        code = run(arguments)
    # Else the interpreter would look through all of TensorFlow, Prefect and MLflow for garbage on its way out: 2 s.
    gc.freeze()
    sys.exit(code)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] == "help":
        arguments = [*arguments[1:2], "--help"]
    redact_logs()
    with redacted_output():
        return _run(arguments)


def _run(arguments: Sequence[str]) -> int:
    try:
        code = app(args=list(arguments), prog_name="hotswap", standalone_mode=False)
    except typer.TyperException as exc:
        context = getattr(exc, "ctx", None)
        failures.complain_of_usage(exc.format_message(), context.command_path if context else "hotswap")
        return EXIT_USAGE
    except Exception as exc:
        return failures.report(exc)
    if code == EXIT_INTERRUPTED:
        failures.complain("interrupted; `hotswap status` shows what is live")
    return code if isinstance(code, int) else 0


@app.callback()
def hotswap(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """From training data to live traffic and back: train, judge, publish, swap, roll back."""


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


@app.command(context_settings={"ignore_unknown_options": True})  # a row may begin with a minus
def predict(
    model: Model,
    rows: Annotated[list[str], typer.Argument(help="Rows such as 5.1,3.5,1.4,0.2, or - for JSON on standard input.")],
    version: Annotated[int | None, typer.Option(help="Ask this version.")] = None,
    label: Annotated[str | None, typer.Option(help="Ask the version that carries this label.")] = None,
    signature: Annotated[str, typer.Option(help="Ask this signature.")] = "",
    grpc: Annotated[bool, typer.Option("--grpc", help="Ask over gRPC instead of REST.")] = False,
    as_json: Json = False,
) -> None:
    """
    Ask the model server.

    Without --version and --label the version with label stable answers, where there is one. Single values are one row
    where a row has as many.
    """
    from flows.prediction.asking import Asked, ask

    for row in rows:
        if row.startswith("--"):
            raise typer.BadParameter(f"there is no option {row}")
    answer = ask(plain_settings(), Asked(model, version, label, signature, grpc), rows)
    show(presentation.answer_data(answer), presentation.answer_text(answer), as_json, hanging=4)


@app.command()
def label(
    model: Model,
    label: Label,
    version: LabelledVersion = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take the label away instead.")] = False,
    dry_run: DryRun = False,
    reason: Reason = None,
    as_json: Json = False,
) -> None:
    """Point a label and its alias to a version, or take them away."""
    if (version is None) is not remove:
        raise typer.BadParameter("give a version, or --remove")
    if dry_run and not remove:
        raise typer.BadParameter("--dry-run goes with --remove")
    with _deployment(model, f"{'removing' if remove else 'moving'} label {label} of {model}") as deployment:
        from flows.promotion.labelling import remove_label, set_label

        if version is None:
            change = remove_label(deployment, label, dry_run, reason)
        else:
            change = set_label(deployment, label, version, reason)
    _show_change(change, as_json)


@app.command()
def rollback(
    model: Model,
    to: EarlierVersion = None,
    dry_run: DryRun = False,
    reason: Reason = None,
    as_json: Json = False,
) -> None:
    """
    Go back to an earlier version, and retire the later ones.

    The earlier version must give its golden answers first; else nothing changes.
    """
    with _deployment(model, f"rolling back {model}") as deployment:
        from flows.promotion.rollback import rollback

        change = rollback(deployment, to, dry_run, reason)
    _show_change(change, as_json)


@app.command()
def retire(
    model: Model,
    version: PublishedVersion,
    force: Annotated[
        str | None, typer.Option(metavar="REASON", help="Why to retire the last or a labelled version all the same.")
    ] = None,
    dry_run: DryRun = False,
    reason: Reason = None,
    as_json: Json = False,
) -> None:
    """Take a version out of the polled directory."""
    with _deployment(model, f"retiring version {version} of {model}") as deployment:
        from flows.promotion.retirement import retire

        change = retire(deployment, version, force, dry_run, reason)
    _show_change(change, as_json)


@app.command()
def tidy(model: Model, dry_run: DryRun = False, reason: Reason = None, as_json: Json = False) -> None:
    """
    Retire what is neither among the newest nor labelled.

    HOTSWAP_KEEP_VERSIONS says how many are the newest.
    """
    with _deployment(model, f"retiring old versions of {model}") as deployment:
        from flows.promotion.retention import tidy

        change = tidy(deployment, dry_run, reason)
    _show_change(change, as_json)


@app.command()
def restore(
    model: Model,
    version: RetiredVersion,
    reason: Reason = None,
    as_json: Json = False,
) -> None:
    """Put a retired version back."""
    with _deployment(model, f"restoring version {version} of {model}") as deployment:
        from flows.promotion.retirement import restore

        change = restore(deployment, version, reason)
    _show_change(change, as_json)


@app.command()
def remove(
    model: Model,
    force: Annotated[str | None, typer.Option(metavar="REASON", help="Why the whole model has to go.")] = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Take a whole model out, and archive all its versions."""
    with _deployment(model, f"removing {model}") as deployment:
        from flows.promotion.removal import remove

        removed = remove(deployment, force, dry_run)
    show(dataclasses.asdict(removed), presentation.removal_text(removed), as_json)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False)
def serve(context: typer.Context, as_json: Json = False) -> int:
    """Run the model server alone, with its flags (`serve --help`)."""
    if "--help" in context.args:
        print(presentation.server_help())
        return 0
    from flows.local.stack import server_flags
    from serving.cli import main as serve_models

    flags = [*server_flags(plain_settings()), *context.args]
    return serve_models([*flags, "--ports_file=-"] if as_json else flags)


@app.command()
def up(as_json: Json = False) -> None:
    """Run model server, MLflow page and Prefect server, until Ctrl-C."""
    with progress.shown("starting model server, MLflow page and Prefect server", logging.WARNING) as close:
        from flows.local import stack
        from flows.machine.log_file import keep_log
        from flows.settings import prepare_home

        settings = plain_settings()
        keep_log("flows.local.supervision", prepare_home(settings) / "logs" / "up.log")
        stack.up(settings, as_json, close)


app.registered_commands += report_commands.app.registered_commands


@contextmanager
def _deployment(model: str, doing: str) -> Iterator[Deployment]:
    """The model that a command changes; a terminal shows what it is `doing` during the block."""
    with at_work(doing) as settings:
        from flows.promotion.deployment import Deployment

        yield Deployment(settings, model)


def _flow_shown(first: str) -> AbstractContextManager[Any]:
    # What goes wrong arrives here as an exception, and is told once.
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
    stamp = Repository(plain_settings().models_repo).stamp(outcome.model, outcome.version)
    return written(stamp.get("golden", {}).get("inputs", []))


def _show_change(change: Change, as_json: bool) -> None:
    show(dataclasses.asdict(change), presentation.change_text(change), as_json)


if __name__ == "__main__":
    main()
