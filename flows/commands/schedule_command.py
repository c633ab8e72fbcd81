"""The command that lets trainings start by themselves, `hotswap schedule`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Unpack

import typer

from flows.commands.edges import at_work, plain_settings, show
from flows.commands.options import Json
from flows.console import progress
from flows.parameters import ScheduledRecipe, TrainParameters, check_bounds, spelled_out

if TYPE_CHECKING:
    from flows.orchestration.triggers import Trigger

app = typer.Typer()

_WORKER_SECONDS = 120.0  # a busy machine takes long to import everything


@app.command()
@spelled_out
def schedule(
    recipe: ScheduledRecipe = None,
    *,
    cron: Annotated[
        str | None, typer.Option(metavar="CRON", help="When, in five fields: '0 6 * * 1' is Mondays at six.")
    ] = None,
    every: Annotated[float | None, typer.Option(metavar="HOURS", min=0.001, help="How often, in hours.")] = None,
    timezone: Annotated[str, typer.Option(metavar="ZONE", help="Of --cron, such as Europe/Berlin.")] = "UTC",
    when_changed: Annotated[
        list[Path] | None,
        typer.Option(metavar="PATH", help="When this file or folder has new content; may be repeated."),
    ] = None,
    when_drifted: Annotated[
        bool, typer.Option("--when-drifted", help="When what comes in no longer looks like the training data.")
    ] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Start it by itself no longer.")] = False,
    as_json: Json = False,
    **parameters: Unpack[TrainParameters],
) -> None:
    """
    Let a training start by itself, or list what does.

    It takes the options of `train`; without a recipe it lists. One schedule a model; giving it again replaces it.
    `hotswap up` runs it.
    """
    with at_work("scheduling"):
        from flows.orchestration.triggers import Trigger

        _find_prefect()
        if recipe is None and not parameters["csv"]:
            _list(as_json)
            return
        model, given = _checked(recipe or "iris", parameters)
        if remove:
            _remove(model, as_json)
            return
        paths = tuple(str(each.absolute()) for each in when_changed or ())
        _install(Trigger(model, cron, every, timezone, paths, when_drifted), given, as_json)


def _list(as_json: bool) -> None:
    from flows.orchestration import triggers

    rows = triggers.installed()
    text = "\n".join(f"{each['model']}  {each['when']}" for each in rows) or "No training starts by itself."
    show({"schedules": rows}, text, as_json)


def _remove(model: str, as_json: bool) -> None:
    from flows.orchestration import triggers

    triggers.remove(model)
    show({"model": model, "removed": True}, f"{model} is no longer trained by itself.", as_json)


def _install(trigger: Trigger, parameters: dict[str, Any], as_json: bool) -> None:
    from flows.local.data_watch import start_from
    from flows.machine.instance import wait_while_starting
    from flows.orchestration import triggers

    if not trigger.described:
        raise typer.BadParameter("say when: --cron, --every, --when-changed or --when-drifted")
    progress.step("waiting for the worker of `hotswap up`, which makes the deployments")
    wait_while_starting(plain_settings().home, "worker", _WORKER_SECONDS)
    deployment = triggers.install(trigger, parameters)
    if trigger.when_changed:
        start_from(plain_settings(), deployment, [Path(each) for each in trigger.when_changed])
    text = f"{trigger.model} is trained {trigger.described}: deployment {trigger.name} on Prefect's page."
    show({"model": trigger.model, "when": trigger.described, "deployment": deployment}, text, as_json)


def _find_prefect() -> None:
    """
    Raises:
        PrefectUnavailable: None runs.
    """
    from flows.orchestration import prefect_access
    from flows.orchestration.prefect_access import PrefectUnavailable
    from flows.orchestration.prefect_server import find_running_prefect

    if not find_running_prefect(plain_settings()):
        raise PrefectUnavailable("No Prefect server answers, and it keeps the schedules: start it with `hotswap up`")
    prefect_access.read_settings()


def _checked(recipe: str, parameters: TrainParameters) -> tuple[str, dict[str, Any]]:
    """The model, and the parameters that are given, as any process of this machine understands them."""
    from flows.search.asked import check_asked
    from flows.tables.options import recipe_of, titled

    check_bounds(TrainParameters, parameters)
    found = recipe_of(recipe, parameters)
    check_asked(found, parameters)
    named = titled(recipe, parameters)
    file, colon, attribute = named.partition(":")
    if file.endswith(".py"):
        named = f"{Path(file).expanduser().absolute()}{colon}{attribute}"
    given = {"recipe": named, **{name: value for name, value in parameters.items() if value is not None}}
    if csv := parameters.get("csv"):
        given["csv"] = str(Path(csv).absolute())
    return found.name, given
