"""The commands that change which versions are live: labels move, versions leave and come back."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands import presentation
from flows.commands.edges import at_work, plain_settings, show
from flows.commands.options import (
    DryRun,
    EarlierVersion,
    Json,
    Label,
    LabelledVersion,
    Model,
    PublishedVersion,
    RetiredVersion,
    models,
)
from flows.console import progress
from flows.parameters import Reason

if TYPE_CHECKING:
    from flows.promotion.change import Change
    from flows.promotion.deployment import Deployment

app = typer.Typer()


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
    model: Annotated[str, typer.Argument(autocompletion=models, help="The model's name, or the file of a backup.")],
    version: RetiredVersion = None,
    to: Annotated[
        Path | None,
        typer.Option(metavar="DIRECTORY", help="Where a backup goes, as .hotswap and models_repo; else as set."),
    ] = None,
    reason: Reason = None,
    as_json: Json = False,
) -> None:
    """
    Put a retired version back, or all of a backup.

    A backup is verified first, and goes where nothing is yet.
    """
    if version is None:
        _restore_backup(Path(model), to, as_json)
        return
    if to is not None:
        raise typer.BadParameter("--to goes with the file of a backup")
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


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="The archive to write, such as /backups/monday.tar.gz.")],
    as_json: Json = False,
) -> None:
    """
    Back up home, models and registry to one archive.

    Everything may run meanwhile.
    """
    with at_work("backing up") as settings:
        from flows.backups.backup import back_up

        made = back_up(settings, file.absolute())
    show(dataclasses.asdict(made), presentation.backup_text(made), as_json)


def _restore_backup(file: Path, to: Path | None, as_json: bool) -> None:
    if not file.exists():
        raise typer.BadParameter(f"{file} is no file; to put a version of a model back, give its number too")
    with progress.shown(f"restoring {file}", logging.WARNING, quiet=True):
        from flows.backups.restore import restore

        settings = plain_settings()  # to apply them, the restore has to be done
        home = settings.home if to is None else to / ".hotswap"
        restored = restore(file, home, settings.models_repo if to is None else to / "models_repo")
    show(dataclasses.asdict(restored), presentation.restored_text(restored), as_json)


@contextmanager
def _deployment(model: str, doing: str) -> Iterator[Deployment]:
    """The model that a command changes; a terminal shows what it is `doing` during the block."""
    with at_work(doing) as settings:
        from flows.promotion.deployment import Deployment

        yield Deployment(settings, model)


def _show_change(change: Change, as_json: bool) -> None:
    show(dataclasses.asdict(change), presentation.change_text(change), as_json)
