"""The command line as Typer has it: its commands, in the order of ``--help``."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.commands import (
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

app = typer.Typer(name="hotswap", rich_markup_mode=None)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"hotswap {version('hotswap')}")
        raise typer.Exit


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
