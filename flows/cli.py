"""
The command line `hotswap`: its commands in the order of ``--help``, and the exit code of each run.

Data go to standard output, logs and errors to standard error. Everything heavy is imported by the command that needs
it, so that ``--help`` and ``predict`` answer at once.
"""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from flows.commands import (
    failures,
    fleet_commands,
    prediction_commands,
    presentation,
    report_commands,
    schedule_command,
    security_commands,
    stack_commands,
    training_commands,
    version_commands,
)
from flows.commands.edges import plain_settings
from flows.commands.options import Json
from flows.local.delegation import WorkerGone, delegated
from flows.local.interrupts import defer_sigint
from serving.protocol.redaction import redact_logs, redacted_output

EXIT_USAGE = 2
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

    0 done, 1 error, 2 usage, 3 not passed by the gate, 4 sandbox rejected, 5 not verified and undone, 6 up already,
    7 not approved, 8 drifted, 9 too little data to tell.
    """
    with defer_sigint():
        arguments = list(sys.argv[1:] if arguments is None else arguments)
        code = _delegated(arguments)
        if code is None:
            code = run(arguments)
        _deliver_events()
    # Else the interpreter would look through all of TensorFlow, Prefect and MLflow for garbage on its way out: 2 s.
    gc.freeze()
    sys.exit(code)


def _deliver_events() -> None:
    """Deliver what this command has told, once its result is printed; one that has told nothing imports nothing."""
    if "flows.events.outbox" not in sys.modules:
        return
    from flows.events.delivery import flush

    try:
        flush(plain_settings())
    except Exception as exc:
        logging.getLogger(__name__).warning("events not delivered: %s", exc)


def _delegated(arguments: Sequence[str]) -> int | None:
    try:
        return delegated(arguments)
    except WorkerGone as exc:
        return failures.report(exc)


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


app.registered_commands += training_commands.app.registered_commands


app.registered_commands += schedule_command.app.registered_commands
app.registered_commands += prediction_commands.app.registered_commands
app.registered_commands += version_commands.app.registered_commands


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False)
def serve(context: typer.Context, as_json: Json = False) -> int:
    """Run the model server alone, with its flags (`serve --help`)."""
    if "--help" in context.args:
        print(presentation.server_help())
        return 0
    from flows.local.exposure import check_flags
    from flows.local.stack import server_flags
    from serving.cli import main as serve_models

    settings = plain_settings()
    check_flags(settings, context.args)
    flags = [*server_flags(settings), *context.args]
    return serve_models([*flags, "--ports_file=-"] if as_json else flags)


app.registered_commands += stack_commands.app.registered_commands
app.registered_commands += report_commands.app.registered_commands
app.registered_commands += security_commands.app.registered_commands
app.registered_commands += fleet_commands.app.registered_commands


if __name__ == "__main__":
    main()
