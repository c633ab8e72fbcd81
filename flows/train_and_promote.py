"""
From training data to live traffic: the flows `train_and_promote` and `promote`.

A flow is the table of its own contents; the steps are in `promotion_steps`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Unpack

from prefect import State, flow
from prefect.states import Completed
from prefect.task_runners import ThreadPoolTaskRunner

from flows.approval_steps import NOT_APPROVED, go_live_when_approved, make_pending
from flows.candidate_search import params, trained
from flows.drift.reference import profile_of
from flows.events.delivery import flushed
from flows.gate.noninferiority import Verdict
from flows.given_models import ask_unevaluated, can_answer, fetch, published_as
from flows.orchestration.prefect_records import followed, is_of_deployment
from flows.parameters import PromoteParameters, RecipeName, TrainParameters, spelled_out
from flows.promotion import recovery
from flows.promotion.deployment import Deployment
from flows.promotion.resuming import bring_checkpoint
from flows.promotion.undo import undone_on_failure
from flows.promotion_run import PromotionRun, Request, TrainOutcome, promotion_run
from flows.promotion_steps import (
    ask,
    evaluate,
    evaluate_live,
    examine,
    explain,
    gate,
    keep,
    load,
    make_stable,
    move_label,
    publish,
    register,
    tidy_up,
    try_in_sandbox,
    verify,
    watch,
)
from flows.search.processes import at_once
from flows.settings import apply_environment, load_settings
from flows.tables.recipe import TableRecipe
from flows.training.candidate import Candidate, Unevaluated
from flows.training.champion import Champion
from flows.training.checkpoints import seed_and_epochs
from flows.training.inspection import Inspection
from serving.protocol.redaction import redacted

Result = TrainOutcome | State[TrainOutcome]
"""The outcome; of a candidate that did not pass, as the state ``Rejected`` or ``Inconclusive`` of a completed run."""


@flow(
    name="train-and-promote",
    flow_run_name="train {recipe} seed {seed}",
    task_runner=ThreadPoolTaskRunner(max_workers=at_once()),  # type: ignore[arg-type]  # which its own type is
)
@followed
@spelled_out
def train_and_promote(recipe: RecipeName = "iris", **parameters: Unpack[TrainParameters]) -> Result:
    """Train `recipe`, judge it, record it, and promote what passes the gate."""
    request = Request.to_train(recipe, parameters)
    if parameters["resume"]:
        bring_checkpoint(load_settings(), request.recipe.name, parameters["resume"])
    seed, epochs = seed_and_epochs(load_settings().home, request.recipe, parameters)
    with started(request, {"recipe": recipe, **params(request.recipe, seed, epochs, parameters)}) as current:
        dataset = load(current)
        saved_model = trained(current, dataset, seed, epochs, {"recipe": recipe, **parameters})
        inspection, files = examine(current, saved_model)
        current.require(files)
        candidate = evaluate(current, dataset, saved_model, inspection)
        profile_of(candidate).write(saved_model)
        if isinstance(request.recipe, TableRecipe):
            explain(current, candidate)
        champion = evaluate_live(current, candidate)
        model_uri = keep(current, candidate)
        current.require(gate(current, candidate, champion))
        current.require(try_in_sandbox(current, candidate, champion))
        with sole_promotion(current, candidate, champion):
            registered = register(current, candidate, model_uri)
            with undone_on_failure(current.deployment, registered.version):
                publish(current, candidate, registered)
                verify(current, registered.version)
                give_label(current, registered.version)
        if request.approve_within:
            go_live_when_approved(current, lambda: sole_promotion(current, candidate, champion))
        watch(current)
        tidy_up(current)
    return result_of(current)


@flow(name="promote", flow_run_name="promote {recipe}")
@followed
@spelled_out
def promote(recipe: RecipeName, **parameters: Unpack[PromoteParameters]) -> Result:
    """Judge a model that is there already as one that was just trained, and promote it when it passes."""
    request = Request.to_promote(recipe, parameters)
    run, saved_model, version = parameters["run"], parameters["saved_model"], parameters["version"]
    source = f"run {run}" if run else f"version {version}" if version is not None else str(saved_model)
    with started(request, {"recipe": recipe, "candidate": source}) as current:
        copied = fetch(current, run, saved_model, version)
        if version is None:
            version = published_as(current, copied)
        inspection, files = examine(current, copied)
        current.require(files)
        if (unfit := can_answer(current, copied, inspection)) is not None:
            current.require(unfit)
        candidate = asked(current, copied, inspection)
        champion = evaluate_live(current, candidate)
        model_uri = keep(current, candidate) if version is None else ""
        current.require(gate(current, candidate, champion))
        current.require(try_in_sandbox(current, candidate, champion))
        with sole_promotion(current, candidate, champion):
            if version is None:
                registered = register(current, candidate, model_uri)
                with undone_on_failure(current.deployment, registered.version):
                    publish(current, candidate, registered)
                    verify(current, registered.version)
                    give_label(current, registered.version)
            elif request.approve_within:
                make_pending(current, version, was_published=True)
            else:
                make_stable(current, version)
        if request.approve_within:
            go_live_when_approved(current, lambda: sole_promotion(current, candidate, champion))
        watch(current)
        tidy_up(current)
    return result_of(current)


def asked(run: PromotionRun, saved_model: Path, inspection: Inspection) -> Candidate | Unevaluated:
    """The candidate with its answers to held-out rows; where there are none, to rows made from its signature."""
    if (reason := run.request.unevaluated) is not None:
        return ask_unevaluated(run, saved_model, inspection, reason)
    return evaluate(run, load(run, saved_model, inspection), saved_model, inspection)


@contextmanager
def started(request: Request, params: Mapping[str, Any]) -> Iterator[PromotionRun]:
    """A run whose servers answer, all of them with the same versions; nothing has been begun before."""
    settings = load_settings()
    apply_environment(settings)
    deployment = Deployment(settings, request.recipe.name)
    ask(deployment)
    with flushed(settings, is_of_deployment()), promotion_run(request, deployment, params) as run:
        yield run


@contextmanager
def sole_promotion(run: PromotionRun, candidate: Candidate | Unevaluated, champion: Champion | None) -> Iterator[None]:
    """
    One promotion of a model at a time: its number, its directory and its labels belong together.

    If another one was faster, the candidate is judged again, against what that has made live.
    """
    deployment = run.deployment
    with deployment.lock():
        recovery.recover(deployment)
        if deployment.champion != (champion.version if champion else None):
            run.require(gate(run, candidate, evaluate_live(run, candidate)))
        ask(deployment)
        yield


def give_label(run: PromotionRun, version: int) -> None:
    """Give a verified version its label, or the one that waits for an approval."""
    if run.request.approve_within:
        make_pending(run, version)
    else:
        move_label(run, version)


def result_of(run: PromotionRun) -> Result:
    if run.outcome.decision == NOT_APPROVED:
        return Completed(name="NotApproved", message=redacted(run.outcome.reason), data=run.outcome)
    if run.verdict is Verdict.PASSED:
        return run.outcome
    name, message = run.verdict.value.capitalize(), redacted(run.outcome.reason)
    return Completed(name=name, message=message, data=run.outcome)
