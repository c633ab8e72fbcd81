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

from flows import failures, presentation, progress
from flows.failures import EXIT_ERROR
from flows.interrupts import between_locks
from flows.options import (
    AllowBreaking,
    AnyModel,
    AnyVersion,
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
    Wide,
)
from flows.terminal import console, width, wrapped
from serving.redaction import redact_logs, redacted_output

if TYPE_CHECKING:
    from flows.journal import Entry
    from flows.labelling import Change
    from flows.settings import Settings
    from flows.train_and_promote import TrainOutcome

EXIT_USAGE = 2
EXIT_REJECTED = 3
EXIT_SANDBOX_REJECTED = 4
EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="hotswap",
    rich_markup_mode=None,
)


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
    with between_locks():
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
        from flows import launch

        outcome = launch.train(_settings(), recipe, seed, epochs, min_accuracy, allow_breaking, bake, reason, label)
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
        from flows import launch

        outcome = launch.promote(
            _settings(), recipe, run, saved_model, min_accuracy, allow_breaking, bake, reason, label, version
        )
    return _show_outcome(outcome, verbose, as_json)


@app.command()
def status(
    model: AnyModel = None,
    wide: Wide = False,
    as_json: Json = False,
) -> None:
    """Show versions, states, labels, aliases, accuracy and run ids."""
    from flows.presentation import show_place
    from flows.status import overview
    from flows.tables import version_table

    found = overview(_prepared(), model)
    if as_json:
        print(json.dumps(dataclasses.asdict(found)))
        return
    show_place(found)
    if found.versions:
        console(wide).print(version_table(found.versions, None if wide else width()))
        for row in found.versions:
            for what in row.drift:
                print(wrapped(f"{row.model}: {what}", hanging=2))
    else:
        print(wrapped("There is no model yet: begin with `hotswap train`"))


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
    from flows.asking import Asked, ask

    for row in rows:
        if row.startswith("--"):
            raise typer.BadParameter(f"there is no option {row}")
    answer = ask(_settings(), Asked(model, version, label, signature, grpc), rows)
    _show(presentation.answer_data(answer), presentation.answer_text(answer), as_json, hanging=4)


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
    with _at_work(f"{'removing' if remove else 'moving'} label {label} of {model}") as settings:
        from flows import promotion

        if version is None:
            change = promotion.remove_label(settings, model, label, dry_run, reason)
        else:
            change = promotion.set_label(settings, model, label, version, reason)
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
    with _at_work(f"rolling back {model}") as settings:
        from flows import promotion

        change = promotion.rollback(settings, model, to, dry_run, reason)
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
    with _at_work(f"retiring version {version} of {model}") as settings:
        from flows import promotion

        change = promotion.retire(settings, model, version, force, dry_run, reason)
    _show_change(change, as_json)


@app.command()
def tidy(model: Model, dry_run: DryRun = False, reason: Reason = None, as_json: Json = False) -> None:
    """
    Retire what is neither among the newest nor labelled.

    HOTSWAP_KEEP_VERSIONS says how many are the newest.
    """
    with _at_work(f"retiring old versions of {model}") as settings:
        from flows import retention

        change = retention.tidy(settings, model, dry_run, reason)
    _show_change(change, as_json)


@app.command()
def restore(
    model: Model,
    version: RetiredVersion,
    reason: Reason = None,
    as_json: Json = False,
) -> None:
    """Put a retired version back."""
    with _at_work(f"restoring version {version} of {model}") as settings:
        from flows import promotion

        change = promotion.restore(settings, model, version, reason)
    _show_change(change, as_json)


@app.command()
def remove(
    model: Model,
    force: Annotated[str | None, typer.Option(metavar="REASON", help="Why the whole model has to go.")] = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Take a whole model out, and archive all its versions."""
    from flows import removal
    from flows.presentation import removal_text

    removed = removal.remove(_prepared(), model, force, dry_run)
    _show(dataclasses.asdict(removed), removal_text(removed), as_json)


@app.command()
def history(
    model: Model,
    at: Annotated[
        str | None, typer.Option(metavar="TIME", help="What was live then: 2026-11-22T10:00, or with an offset.")
    ] = None,
    wide: Wide = False,
    as_json: Json = False,
) -> None:
    """Show what changed what is live, when, by whom and why."""
    from flows import history
    from flows.tables import history_table

    settings = _prepared()
    if at is None:
        entries = history.history(settings, model)
        if as_json:
            print(json.dumps([{**entry.facts, **_plain_entry(entry)} for entry in entries]))
        else:
            console(wide).print(history_table(entries, None if wide else width()))
        return
    moment = history.live_at(settings, model, at)
    _show(dataclasses.asdict(moment), presentation.moment_text(moment), as_json)


@app.command()
def explain(
    model: Model,
    version: AnyVersion,
    as_json: Json = False,
) -> int:
    """
    Follow a version back to run, data, git commit and gate.

    The exit code is 1 when its files are not those that were judged.
    """
    with _at_work(f"following version {version} of {model}") as settings:
        from flows import explain

        told = explain.explain(settings, model, version)
    text = "\n".join(f"{name:<12}{value}" for name, value in explain.lines(told))
    _show(dataclasses.asdict(told), text, as_json, hanging=12)
    return EXIT_ERROR if told.problems else 0


@app.command()
def reconcile(
    model: AnyModel = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> int:
    """
    Make registry, directory, config, journal and servers agree.

    The exit code is 1 when something does not.
    """
    with _at_work("comparing registry, directory, config, journal and servers") as settings:
        from flows import drift

        names = drift.models(settings) if model is None else [drift.known_model(settings, model)]
        repairs = [drift.repair(settings, name, dry_run) for name in names]
    if as_json:
        print(json.dumps([dataclasses.asdict(repair) for repair in repairs]))
    else:
        print(wrapped("\n".join(presentation.repair_lines(repairs)) or "Everything agrees.", hanging=2))
    return EXIT_ERROR if any(repair.left for repair in repairs) else 0


@app.command()
def doctor(as_json: Json = False) -> int:
    """
    Look for all that is wrong, and say the next step.

    The exit code is 1 when there is something.
    """
    with _at_work("examining everything") as settings:
        from flows import doctor

        findings = doctor.examine(settings)
    if as_json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings]))
    else:
        lines = (f"{each.model}: {each.what}\n  next: {each.next_step}" for each in findings)
        print(wrapped("\n".join(lines) or "All is well.", hanging=4))
    return EXIT_ERROR if findings else 0


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False)
def serve(context: typer.Context, as_json: Json = False) -> int:
    """Run the model server alone, with its flags (`serve --help`)."""
    if "--help" in context.args:
        print(presentation.server_help())
        return 0
    from flows.stack import server_flags
    from serving.cli import main as serve_models

    flags = [*server_flags(_settings()), *context.args]
    return serve_models([*flags, "--ports_file=-"] if as_json else flags)


@app.command()
def up(as_json: Json = False) -> None:
    """Run model server, MLflow page and Prefect server, until Ctrl-C."""
    with progress.shown("starting model server, MLflow page and Prefect server", logging.WARNING) as close:
        from flows import stack
        from flows.log_file import keep_log
        from flows.settings import prepare_home

        settings = _settings()
        keep_log("flows.supervision", prepare_home(settings) / "logs" / "up.log")
        stack.up(settings, as_json, close)


def _settings() -> Settings:
    from flows.settings import load_settings

    return load_settings()


@contextmanager
def _at_work(what: str) -> Iterator[Settings]:
    """As `_prepared`; a terminal shows `what` is being done during the block."""
    from flows.settings import apply_environment

    with progress.shown(what, logging.WARNING, quiet=True):
        settings = _settings()
        apply_environment(settings)
        yield settings


def _prepared() -> Settings:
    """The settings, with MLflow and Prefect told where to keep their state."""
    from flows.settings import apply_environment

    progress.show_logs(logging.WARNING)
    settings = _settings()
    apply_environment(settings)
    return settings


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
    from flows.rows import written
    from serving.repository import Repository

    stamp = {} if outcome.version is None else Repository(_settings().models_repo).stamp(outcome.model, outcome.version)
    return written(stamp.get("golden", {}).get("inputs", []))


def _show(data: dict[str, Any], text: str, as_json: bool, hanging: int = 0) -> None:
    print(json.dumps(data) if as_json else wrapped(text, hanging=hanging))


def _show_change(change: Change, as_json: bool) -> None:
    _show(dataclasses.asdict(change), presentation.change_text(change), as_json)


def _plain_entry(entry: Entry) -> dict[str, str]:
    return {"time": entry.time, "who": entry.who, "action": entry.action}


if __name__ == "__main__":
    main()
