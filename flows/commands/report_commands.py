"""The commands that report the state of all models, and repair what does not agree."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated, Unpack

import typer

from flows.commands import presentation
from flows.commands.edges import at_work, prepared, show
from flows.commands.failures import EXIT_ERROR
from flows.commands.options import AnyModel, AnyVersion, DryRun, Json, Model, Wide
from flows.console.terminal import console, width, wrapped
from flows.parameters import DriftParameters, spelled_out

if TYPE_CHECKING:
    from flows.journal import Entry

EXIT_DRIFTED = 8
EXIT_TOO_LITTLE_DATA = 9

app = typer.Typer()


@app.command()
def status(
    model: AnyModel = None,
    wide: Wide = False,
    as_json: Json = False,
) -> None:
    """Show versions, states, labels, aliases, accuracy and run ids."""
    from flows.commands.presentation import show_place
    from flows.reports.status import overview
    from flows.reports.tables import version_table

    found = overview(prepared(), model)
    if as_json:
        print(json.dumps(presentation.overview_data(found)))
        return
    show_place(found)
    if found.versions:
        console(wide).print(version_table(found.versions, None if wide else width()))
        for row in found.versions:
            for what in row.findings:
                print(wrapped(f"{row.model}: {what}", hanging=2))
    else:
        print(wrapped("There is no model yet: begin with `hotswap train`"))


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
    from flows.promotion import history
    from flows.promotion.deployment import Deployment
    from flows.reports.tables import history_table

    deployment = Deployment(prepared(), model)
    if at is None:
        entries = history.history(deployment)
        if as_json:
            print(json.dumps([{**entry.facts, **_plain_entry(entry)} for entry in entries]))
        else:
            console(wide).print(history_table(entries, None if wide else width()))
        return
    moment = history.live_at(deployment, at)
    show(dataclasses.asdict(moment), presentation.moment_text(moment), as_json)


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
    with at_work(f"following version {version} of {model}") as settings:
        from flows.promotion.deployment import Deployment
        from flows.reports import explain

        found = explain.explain(Deployment(settings, model), version)
    text = "\n".join(f"{name:<12}{value}" for name, value in explain.lines(found))
    show(dataclasses.asdict(found), text, as_json, hanging=12)
    return EXIT_ERROR if found.problems else 0


@app.command()
@spelled_out
def drift(
    model: Model,
    *,
    wide: Wide = False,
    as_json: Json = False,
    **parameters: Unpack[DriftParameters],
) -> int:
    """
    Compare what clients ask with the training data.

    The exit code is 8 where that has drifted, and 9 where too little was logged to tell.
    """
    with at_work(f"comparing what is asked of {model} with its training data") as settings:
        from flows.drift.report import Verdict
        from flows.local import launch

        report = launch.drift(settings, model, **parameters)
    if as_json:
        print(json.dumps(report.data))
    else:
        presentation.show_drift(report, wide)
    return {Verdict.DRIFTED: EXIT_DRIFTED, Verdict.TOO_LITTLE_DATA: EXIT_TOO_LITTLE_DATA}.get(report.verdict, 0)


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
    with at_work("comparing registry, directory, config, journal and servers") as settings:
        from flows.orchestration import open_runs
        from flows.promotion.deployment import Deployment
        from flows.reconciliation.repair import repair
        from flows.reconciliation.state import check_known, known_models
        from serving.repository.store import Repository

        Repository(settings.models_repo).check_own()
        if not dry_run:
            open_runs.end_in_prefect(settings)
        names = known_models(settings) if model is None else [check_known(settings, model)]
        repairs = [repair(Deployment(settings, name), dry_run) for name in names]
    if as_json:
        print(json.dumps([presentation.repair_data(each) for each in repairs]))
    else:
        print(wrapped("\n".join(presentation.repair_lines(repairs)) or "Everything agrees.", hanging=2))
    return EXIT_ERROR if any(each.remaining for each in repairs) else 0


@app.command()
def doctor(as_json: Json = False) -> int:
    """
    Look for everything that is wrong, and name the next step.

    The exit code is 1 when there is something.
    """
    with at_work("examining everything") as settings:
        from flows.reports import doctor

        findings = doctor.examine(settings)
    if as_json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings]))
    else:
        lines = (f"{each.model}: {each.what}\n  next: {each.next_step}" for each in findings)
        print(wrapped("\n".join(lines) or "All is well.", hanging=4))
    return EXIT_ERROR if findings else 0


def _plain_entry(entry: Entry) -> dict[str, str]:
    return {"time": entry.time, "who": entry.who, "action": entry.action}
