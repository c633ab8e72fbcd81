"""
What does a command print for a person?

Sentences stand here, tables in `flows.tables`; both are written for a terminal of 80 columns.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clients.client import Prediction
    from flows.drift import Repair
    from flows.history import Moment
    from flows.labelling import Change
    from flows.train_and_promote import TrainOutcome

_PIPE_WIDTH = 140


def console() -> Any:
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH)


def change_text(change: Change) -> str:
    what = f"{change.model} version {change.version}"
    retired = ", ".join(map(str, change.retired)) or "none"
    if change.dry_run and change.action == "unlabel":
        return f"Would take label {change.label} away from {what}. Nothing was changed."
    if change.dry_run:
        back = f"Would roll back to {what}. " if change.action == "rollback" else ""
        return f"{back}Would retire: {retired}. Nothing was changed."
    if change.action == "tidy":
        return f"Retired: {retired}."
    told = {
        "label": f"Label {change.label} now points to {what}.",
        "unlabel": f"Label {change.label} no longer points to {what}.",
        "rollback": f"Rolled back from version {change.previous}: label {change.label} points to {what}.",
        "retire": f"Retired {what}: `hotswap restore {change.model} {change.version}` puts it back.",
        "restore": f"Restored {what}.",
    }[change.action]
    if change.retired and change.action == "rollback":
        told += f" Retired: {retired}."
    waiting = "" if change.server else " No server is running: it counts from the next start."
    return told + waiting


def repair_lines(repairs: Sequence[Repair]) -> list[str]:
    return [
        *(
            f"{repair.model}: {'would mend' if repair.dry_run else 'mended'}: {each.what}"
            for repair in repairs
            for each in repair.mended
        ),
        *(f"{repair.model}: left: {each.what}; {each.next_step}" for repair in repairs for each in repair.left),
    ]


def moment_text(moment: Moment) -> str:
    if moment.since is None:
        return f"At {moment.at} there was nothing of {moment.model} yet."
    live = "no version was live" if moment.live is None else f"version {moment.live} was live"
    labels = ", ".join(f"{label} {version}" for label, version in sorted(moment.labels.items())) or "none"
    published = ", ".join(map(str, moment.published)) or "none"
    lines = [f"At {moment.at} {live} of {moment.model}, since {moment.since}.", f"labels     {labels}"]
    return "\n".join([*lines, f"published  {published}", f"run        {moment.run_id or 'not known'}"])


def show_training(outcome: TrainOutcome) -> None:
    from flows.tables import gate_table

    console().print(gate_table(outcome.checks))
    if outcome.decision != "passed":
        told = {"rejected": "was rejected", "sandbox rejected": "was rejected by the sandbox"}.get(
            outcome.decision, "is not shown to be good enough"
        )
        print(f"{outcome.model} {told}, and nothing was published: {outcome.reason}")
        if outcome.log:
            print(f"last lines of the sandbox's server:\n{outcome.log}")
    else:
        print(f"{outcome.model} version {outcome.version} is promoted: accuracy {outcome.metrics['test_accuracy']:.4f}")
        own = "a server of its own, as none is running: `hotswap up` will serve it"
        print(f"verified by  {f'the server at {outcome.server}' if outcome.live else own}")
    print(f"MLflow run   {outcome.run_id}")
    print(f"seconds      {'  '.join(f'{step} {seconds:.1f}' for step, seconds in outcome.seconds.items())}")
    print(f"look at it   `hotswap status {outcome.model}`, and the pages of `hotswap up`")


def prediction_text(model: str, prediction: Prediction, outputs: dict[str, Any]) -> str:
    version = "" if prediction.version is None else f" version {prediction.version}"
    lines = [f"{model}{version}"]
    for name, values in outputs.items():
        lines += [f"  {name}: {_value_text(value)}" for value in (values if isinstance(values, list) else [values])]
    return "\n".join(lines)


def _value_text(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(_value_text, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
