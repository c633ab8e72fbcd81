"""
Writes the result of a command as text for a person, or as a document.

Sentences are written here, tables in `flows.reports.tables`; both fit a terminal of 80 columns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flows.console.terminal import console, filled, one_line, width, wrapped

if TYPE_CHECKING:
    from flows.backups.backup import Backup
    from flows.backups.restore import Restored
    from flows.drift.report import DriftReport
    from flows.prediction.asking import Answer
    from flows.promotion.change import Change
    from flows.promotion.history import Moment
    from flows.promotion.removal import Removal
    from flows.promotion_run import TrainOutcome
    from flows.reconciliation.repair import Repair
    from flows.reports.status import Overview

PASSED = "passed"


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
    sentence = {
        "label": f"Label {change.label} now points to {what}.",
        "unlabel": f"Label {change.label} no longer points to {what}.",
        "rollback": f"Rolled back from version {change.previous}: label {change.label} points to {what}.",
        "retire": f"Retired {what}: `hotswap restore {change.model} {change.version}` puts it back.",
        "restore": f"Restored {what}.",
    }[change.action]
    if change.retired and change.action == "rollback":
        sentence += f" Retired: {retired}."
    waiting = "" if change.server else " No server is running: it takes effect at the next start."
    return sentence + waiting


def backup_text(backup: Backup) -> str:
    models = ", ".join(backup.models) or "none"
    return (
        f"Backed up {backup.files} files, {backup.size_bytes / 1e6:.1f} MB, to {backup.file}. Models: {models}. "
        f"`hotswap restore {backup.file}` brings them back."
    )


def restored_text(restored: Restored) -> str:
    models = ", ".join(restored.models) or "none"
    return (
        f"Restored the backup of {restored.made_at} to {restored.home} and {restored.models_repo}. Models: {models}. "
        "`hotswap up` serves them, and `hotswap doctor` looks for what is wrong."
    )


def removal_text(removal: Removal) -> str:
    model, versions = removal.model, sorted({*removal.published, *removal.retired})
    listed = ", ".join(map(str, versions)) or "none"
    if removal.dry_run:
        live = "No version is live" if removal.live is None else f"Version {removal.live} is live"
        return f"Would remove {model}, and archive its versions: {listed}. {live}. Nothing was changed."
    back = ""
    if versions:
        version = removal.live or versions[-1]
        back = f" `hotswap restore {model} {version}` and `hotswap label {model} stable {version}` bring it back."
    waiting = "" if removal.server else " No server is running."
    return f"Removed {model}. Its versions are in {removal.archive}: {listed}; MLflow keeps them too.{back}{waiting}"


def repair_data(repair: Repair) -> dict[str, Any]:
    """The document of a repair, with the keys that scripts have always read."""
    document = dataclasses.asdict(repair)
    return {"mended": document.pop("repaired"), "left": document.pop("remaining"), **document}


def overview_data(overview: Overview) -> dict[str, Any]:
    """The document of an overview, with the keys that scripts have always read."""
    document = dataclasses.asdict(overview)
    for row in document["versions"]:
        row["drift"] = row.pop("findings")
    return document


def show_drift(report: DriftReport, wide: bool) -> None:
    """The verdict, and the columns that have drifted or changed most."""
    from flows.drift.report import table_rows
    from flows.reports.tables import drift_table

    print(wrapped(f"{report.reason}."))
    if report.live is not None:
        sentence = report.live.sentence
        print(wrapped(f"{sentence[0].upper()}{sentence[1:]}."))
    if report.all_columns:
        console(wide).print(drift_table(list(table_rows(report.all_columns)), None if wide else width()))


def repair_lines(repairs: Sequence[Repair]) -> list[str]:
    lines = []
    for repair in repairs:
        verb = "would repair" if repair.dry_run else "repaired"
        lines += [f"{repair.model}: {verb}: {each.what}" for each in repair.repaired]
    for repair in repairs:
        lines += [f"{repair.model}: remaining: {each.what}; {each.next_step}" for each in repair.remaining]
    return lines


def moment_text(moment: Moment) -> str:
    if moment.since is None:
        return f"At {moment.at} there was nothing of {moment.model} yet."
    live = "no version was live" if moment.live is None else f"version {moment.live} was live"
    labels = ", ".join(f"{label} {version}" for label, version in sorted(moment.labels.items())) or "none"
    published = ", ".join(map(str, moment.published)) or "none"
    lines = [f"At {moment.at} {live} of {moment.model}, since {moment.since}.", f"labels     {labels}"]
    return "\n".join([*lines, f"published  {published}", f"run        {moment.run_id or 'not known'}"])


def show_place(overview: Overview) -> None:
    """Print the home, the repository and the servers that a command works on, and what is up."""
    named = [("home", overview.home), ("repository", overview.repository)]
    named += [("server", server.problem or server.rest) for server in overview.servers]
    states = ", ".join(f"{service.name} {service.state}" for service in overview.services)
    named.append(("services", states or "none: `hotswap up` starts them"))
    _print([f"{name:<10}  {what}" for name, what in named] + [""], hanging=12)


def show_outcome(outcome: TrainOutcome, example: str, verbose: bool) -> None:
    """
    Print the result of a training, then the table of checks where it did not pass, or with `verbose`.

    Args:
        outcome: What the flow returned.
        example: A row for the model, as the command line takes it; empty where none is known.
        verbose: Whether everything is shown.
    """
    passed = outcome.decision == PASSED
    _print([_live_sentence(outcome) if passed else _not_live_sentence(outcome)])
    if passed and outcome.server is not None:
        served = f"at {outcome.server}" if outcome.live else "by no server yet: `hotswap up` starts one"
        _print_named({"served": served, **_next_steps(outcome, example)})
    if outcome.checks and (verbose or not passed):
        from flows.reports.tables import gate_table

        console().print(gate_table(outcome.checks, width()))
    took = {step: f"{step} {seconds:.1f} s" for step, seconds in outcome.seconds.items()}
    pages = {"page": outcome.pages.get("run", ""), "runs": outcome.pages.get("runs", "")}
    _print_named(
        {"run": outcome.run_id, "best": outcome.chosen, **pages, "took": ", ".join(took.values()) if verbose else ""}
    )
    if outcome.log:
        _print(["The last lines of the sandbox's server:", *outcome.log.splitlines()])


def _next_steps(outcome: TrainOutcome, example: str) -> dict[str, str]:
    model, ask = outcome.model, f"hotswap predict {outcome.model} {example or '-'}"
    if _is_stable(outcome):
        return {"ask it": ask, "go back": "" if outcome.previous is None else f"hotswap rollback {model}"}
    return {
        "ask it": f"{ask} --label {outcome.label}",
        "stable": f"hotswap promote {outcome.judged_by or model} --version {outcome.version}",
        "go back": f"hotswap label {model} {outcome.label} --remove",
    }


def _is_stable(outcome: TrainOutcome) -> bool:
    from flows.promotion.labels import STABLE  # with the clients, which most commands do not need

    return outcome.label == STABLE


def _live_sentence(outcome: TrainOutcome) -> str:
    if outcome.was_there and not outcome.checks:
        what = f"{outcome.model} version {outcome.version} has these very files"
        return f"{what} and carries label {outcome.label} already: nothing has changed."
    measured = next((f": {name[5:]} {value:.4f}" for name, value in outcome.metrics.items() if name[5:] != "rows"), "")
    if outcome.unevaluated:
        measured = f", not evaluated: {outcome.unevaluated}"
    if not _is_stable(outcome):
        what = f"{outcome.model} version {outcome.version} carries label {outcome.label}"
        return f"{what}, and what is stable stays stable{measured}."
    same = ", which had these very files already," if outcome.was_there else ""
    return f"{outcome.model} version {outcome.version}{same} is {'live' if outcome.live else 'published'}{measured}."


def _not_live_sentence(outcome: TrainOutcome) -> str:
    if outcome.decision == "not approved":
        return f"{outcome.model} was not approved, and what is live stays live: {outcome.reason}."
    verdict = {"rejected": "was rejected", "sandbox rejected": "was rejected by the sandbox"}.get(
        outcome.decision, "is not shown to be good enough"
    )
    why = "" if outcome.checks else f" {outcome.reason}"
    return f"{outcome.model} {verdict}: nothing was published, and what is live stays live.{why}"


def _print_named(facts: Mapping[str, str]) -> None:
    _print([f"  {name:<8}  {fact}" for name, fact in facts.items() if fact], hanging=12)


def _print(lines: Sequence[str], hanging: int = 0) -> None:
    for line in lines:
        print(wrapped(line, hanging=hanging))


def server_help() -> str:
    """The flags of the model server, each with default and meaning."""
    from serving.flags import flag_defaults, flag_meanings, flags_without_effect

    meanings = flag_meanings()
    lines = [
        "Usage: hotswap serve [--json] [FLAG]...",
        "",
        "Run the model server alone. It takes the flags of tensorflow_model_server as --NAME=VALUE, booleans also "
        "bare. Address, ports, config, monitoring and token file come from the settings of hotswap; what is given here "
        "wins.",
        "",
        "--json",
        "    One JSON document with addresses and process id, once the server answers.",
    ]
    for name, default in flag_defaults().items():
        lines += [f"--{name}={default}", f"    {meanings[name]}"]
    lines += ["", f"Accepted without effect: {', '.join(flags_without_effect())}"]
    return "\n".join(filled(line, hanging=len(line) - len(line.lstrip())) for line in lines)


def answer_data(answer: Answer) -> dict[str, Any]:
    """The document of an answer, with classes where the model has them."""
    classes = {"classes": answer.classes} if answer.classes else {}
    missing = {"missing": list(answer.missing)} if answer.missing else {}
    return {"model": answer.model, "version": answer.version, "outputs": answer.outputs, **classes, **missing}


def answer_text(answer: Answer) -> str:
    """Version, classes and outputs, a line per row."""
    version = "" if answer.version is None else f" version {answer.version}"
    lines = [f"{answer.model}{version}"]
    lines += [f"  missing: {', '.join(answer.missing)}"] if answer.missing else []
    lines += [f"  class: {one_line(each['class'])} {each['probability']:.6g}" for each in answer.classes]
    for name, values in answer.outputs.items():
        lines += [f"  {name}: {_value_text(value)}" for value in (values if isinstance(values, list) else [values])]
    return "\n".join(lines)


def _value_text(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(_value_text, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
