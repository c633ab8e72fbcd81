"""
The steps of the flows that train and promote.

Each is a Prefect task that says what is being done, measures how long it takes, and leaves the work to the room that
knows it.
"""

from __future__ import annotations

import functools
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.console import progress
from flows.gate.figures import as_png, evaluation_figure, importance_figure
from flows.gate.gates import Facts, GateDecision, judge, judge_files
from flows.gate.noninferiority import Verdict
from flows.gate.replay import replay_of
from flows.gate.sandbox import SandboxDecision, try_served
from flows.gate.sandbox_answers import Trial
from flows.gate.unevaluated import judge_unevaluated
from flows.orchestration.prefect_records import keep_report
from flows.orchestration.tasks import as_task
from flows.promotion import bake, promotion, retention, verification
from flows.promotion.deployment import Deployment
from flows.promotion.labels import STABLE
from flows.promotion.undo import kept_on_failure
from flows.promotion.unlabelled import warn_unless_stable
from flows.promotion_run import PromotionRun, step
from flows.registry.mlflow_errors import RegistryError
from flows.registry.mlflow_registry import Registered
from flows.tables.changes import check_table
from flows.tables.holdout import held_out_rows
from flows.tables.recipe import TableRecipe
from flows.tables.schema import Schema
from flows.training import fit
from flows.training.callbacks import Kept
from flows.training.candidate import Candidate, Unevaluated, load_candidate
from flows.training.champion import Champion, evaluate_champion
from flows.training.checkpoints import TrainingKey, checkpoint
from flows.training.dataset import Dataset, load_dataset
from flows.training.explanation import explain_candidate
from flows.training.export import export
from flows.training.inspection import Inspection, inspect
from flows.training.summary import model_facts, model_summary
from serving.repository.saved_model_files import digest
from serving.repository.stamp import Stamp

log = logging.getLogger(__name__)

_PAGE_WIDTH = 120


@functools.partial(as_task, name="ask", retried=True)
def ask(deployment: Deployment) -> None:
    """See that every server answers, serves this repository, and has the same versions as the others."""
    deployment.servers.ask_first(deployment.model)


@step("load", "loading data")
def load(run: PromotionRun, saved_model: Path | None = None, inspection: Inspection | None = None) -> Dataset:
    """
    Load, check and split the recipe's data, or read the rows that a model is judged by that has none.

    Args:
        run: Its request names them.
        saved_model: The model, where there is one already.
        inspection: What its files say.
    """
    recipe, hold_out = run.request.recipe, run.request.hold_out
    if hold_out is None:
        _check_table(run)
        dataset = load_dataset(recipe)
    else:
        assert saved_model is not None
        assert inspection is not None
        dataset = held_out_rows(hold_out, inspection, Schema.read(saved_model))
    run.mlflow.log_dataset(recipe.name, dataset)
    log.info("data loaded recipe=%s train=%d test=%d", recipe.name, len(dataset.train), len(dataset.test))
    return dataset


def _check_table(run: PromotionRun) -> None:
    """Hold a table against the one that the live version was trained on."""
    recipe, deployment = run.request.recipe, run.deployment
    if not isinstance(recipe, TableRecipe):
        return
    run.mlflow.log_page("table.txt", recipe.described(_PAGE_WIDTH))
    if deployment.champion is None:
        return
    kept = Schema.read(deployment.repository.path(deployment.model, deployment.champion))
    if kept is not None:
        run.data_notes = check_table(kept, recipe.schema, run.request.allow_breaking)
    for note in run.data_notes:
        log.warning("%s", note)


@step("train", "training")
def train(run: PromotionRun, dataset: Dataset, seed: int, epochs: int, resumed: str | None) -> Path:
    """Fit the recipe's model, or go on with the run `resumed`, and export it; the SavedModel's directory."""
    recipe, saved_model = run.request.recipe, run.directory / "saved_model"
    if resumed:
        run.mlflow.tag({"resumed_run": resumed})
    key = TrainingKey(recipe.name, seed, epochs, dataset.digest)
    with checkpoint(run.deployment.settings.home, run.mlflow.id, key, resumed) as state:
        kept = Kept(state, functools.partial(_copy_checkpoint, run, state.parent))
        with run.mlflow.training_metrics() as recorded:
            fitted = fit.fit(recipe, dataset, seed, epochs, recorded.add, kept)
        run.mlflow.log_model_summary(model_facts(fitted.model), model_summary(fitted.model))
        export(fitted.model, dataset, recipe.name, saved_model)
    run.mlflow.checkpoints.drop()
    if isinstance(recipe, TableRecipe):
        recipe.schema.write(saved_model)
    return saved_model


def _copy_checkpoint(run: PromotionRun, directory: Path) -> None:
    """Keep it with the run too; a training goes on where that cannot be done."""
    try:
        run.mlflow.checkpoints.keep(directory)
    except RegistryError as exc:
        log.warning("checkpoint not copied to MLflow error=%s", exc)


@functools.partial(as_task, name="examine", retried=False)
def examine(run: PromotionRun, saved_model: Path) -> tuple[Inspection, GateDecision]:
    """Judge the files before anything runs them."""
    inspection = inspect(saved_model)
    decision = judge_files(inspection, run.request.recipe.thresholds)
    if decision.verdict is not Verdict.PASSED:
        report_gate(run, decision)
    return inspection, decision


@step("evaluate", "evaluating the candidate and what is live")
def evaluate(run: PromotionRun, dataset: Dataset, saved_model: Path, inspection: Inspection) -> Candidate:
    """Run the exported SavedModel over the held-out rows."""
    candidate = load_candidate(run.request.recipe, dataset, saved_model, inspection)
    evaluation = candidate.evaluation
    run.note(metrics=evaluation.recorded)
    run.mlflow.log_evaluation(evaluation, candidate.baselines)
    log.info("candidate evaluated %s=%.4f rows=%d", evaluation.task.score_name, evaluation.score, len(evaluation))
    return candidate


@step("explain", "measuring which columns matter")
def explain(run: PromotionRun, candidate: Candidate) -> None:
    """Record which columns of a table matter, and what the model gets wrong."""
    explanation = explain_candidate(candidate)
    picture = as_png(importance_figure(explanation))
    run.mlflow.log_explanation(explanation)
    run.mlflow.log_picture("importance", picture)
    keep_report("columns", run.deployment.model, explanation.markdown, picture=picture)
    most = ", ".join(each.input for each in explanation.importances[:3])
    log.info("columns that matter most: %s", most)


@step("evaluate_live", "evaluating the candidate and what is live", timed_as="evaluate")
def evaluate_live(run: PromotionRun, candidate: Candidate | Unevaluated) -> Champion | None:
    """Run what is live over the same rows; None if nothing is."""
    deployment, version = run.deployment, run.deployment.champion
    if version is None:
        log.info("no champion model=%s", deployment.model)
        return None
    path = deployment.repository.path(deployment.model, version)
    dataset = candidate.dataset if isinstance(candidate, Candidate) else None
    champion = evaluate_champion(path, version, deployment.stamp(version), candidate.predict, dataset)
    if (found := champion.comparable) is not None:
        run.mlflow.log_metrics({f"champion_{found.task.score_name}": found.score})
        log.info("champion evaluated version=%d %s=%.4f", version, found.task.score_name, found.score)
    for note in champion.notes:
        log.warning("champion version=%d: %s", version, note)
    return champion


@step("keep", "logging the candidate to MLflow", retried=True)
def keep(run: PromotionRun, candidate: Candidate | Unevaluated) -> str:
    """Keep the SavedModel in its run, whatever becomes of it; its address in MLflow."""
    return run.mlflow.log_model(candidate.saved_model, candidate.golden)


@step("gate", "judging")
def gate(run: PromotionRun, candidate: Candidate | Unevaluated, champion: Champion | None) -> GateDecision:
    """Judge the candidate, and show the report in Prefect and MLflow."""
    thresholds, allow_breaking = run.request.recipe.thresholds, run.request.allow_breaking
    if isinstance(candidate, Unevaluated):
        decision = judge_unevaluated(candidate.inspection, champion, candidate.reason, thresholds, allow_breaking)
        report_gate(run, decision)
        return decision
    facts = Facts(
        candidate.evaluation, candidate.inspection, candidate.slices, champion, candidate.baselines, run.data_notes
    )
    decision = judge(facts, thresholds, allow_breaking)
    figure = evaluation_figure(facts.evaluation, facts.slices)
    picture = as_png(figure) if figure is not None else b""
    if picture:
        run.mlflow.log_picture("evaluation", picture)
    report_gate(run, decision, picture)
    return decision


def report_gate(run: PromotionRun, decision: GateDecision, picture: bytes = b"") -> None:
    """Show what the gate decided in Prefect and MLflow."""
    model = run.deployment.model
    run.mlflow.log_decision(decision)
    keep_report("gate", model, decision.markdown, decision.table, picture)
    log.info("gate decided model=%s verdict=%s", model, decision.verdict)


@step("sandbox", "trying the candidate in a sandbox")
def try_in_sandbox(run: PromotionRun, candidate: Candidate | Unevaluated, champion: Champion | None) -> SandboxDecision:
    """Serve the candidate beside the champion, ask it the held-out rows, and show the report in Prefect and MLflow."""
    model = run.deployment.model
    decision = try_served(run.sandbox, Trial.of(candidate, champion, replay_of(run.deployment.settings, candidate)))
    run.sandbox.stop()
    run.mlflow.log_sandbox(decision)
    keep_report("sandbox", model, decision.markdown)
    log.info("sandbox decided model=%s verdict=%s", model, decision.verdict)
    return decision


@step("register", "registering", retried=True)
def register(run: PromotionRun, candidate: Candidate | Unevaluated, model_uri: str) -> Registered:
    """Let MLflow give the kept SavedModel a number; a repetition only makes the number higher."""
    deployment, registry = run.deployment, run.deployment.registry
    copy_to = candidate.saved_model.with_name("registered")
    above = deployment.highest_version_seen()
    registered = registry.register(run.mlflow.id, deployment.model, model_uri, above, copy_to)
    if registered.digest != digest(candidate.saved_model):
        raise RegistryError(f"MLflow at {registry.uri} holds other files than were judged: check its artifact store")
    registry.describe(deployment.model, registered.version, candidate.description)
    return registered


@step("publish", "publishing")
def publish(run: PromotionRun, candidate: Candidate | Unevaluated, registered: Registered) -> None:
    """Make the registered files visible to the server, by one rename."""
    stamp = Stamp(
        version=registered.version,
        digest=registered.digest,
        run_id=run.mlflow.id,
        published_at=datetime.now(UTC).isoformat(timespec="seconds"),
        golden=candidate.golden,
        **_judged_by(candidate),
    )
    promotion.publish(run.deployment, registered.version, registered.saved_model, stamp)


def _judged_by(candidate: Candidate | Unevaluated) -> dict[str, Any]:
    if isinstance(candidate, Unevaluated):
        return {"unevaluated": candidate.reason}
    dataset = candidate.dataset
    metrics = candidate.evaluation.recorded
    return {"dataset_digest": dataset.digest, "features": dataset.feature_names, "metrics": metrics}


@step("verify", "verifying that the server answers as judged", retried=True)
def verify(run: PromotionRun, version: int) -> None:
    """Wait until the version answers by number, and as it was judged."""
    server = verification.verify(run.deployment, version)
    run.note(version=version, digest=run.deployment.stamp(version).digest, server=server)


@step("label", "moving the label", retried=True)
def move_label(run: PromotionRun, version: int) -> None:
    """Move the label, and the alias with it."""
    change = promotion.assign_label(run.deployment, version, run.request.label, run.request.why)
    run.note(label=run.request.label, previous=change.previous, live=change.server is not None)


@step("relabel", "moving the label", timed_as="label", retried=True)
def relabel(run: PromotionRun, version: int) -> None:
    """Make a published version the stable one."""
    change = promotion.make(run.deployment, version, STABLE, run.mlflow.id, run.request.why)
    run.note(previous=change.previous, live=change.server is not None)


def watch(run: PromotionRun) -> None:
    """Watch the new version for as long as was asked for."""
    if run.request.bake_seconds:
        bake_promoted(run)


@step("watch", "watching the new version", timed_as="bake")
def bake_promoted(run: PromotionRun) -> None:
    """Compare the new version with the one before while both are asked; undo the promotion if it is worse."""
    version, previous = run.outcome.version, run.outcome.previous
    assert version is not None
    bake.bake(run.deployment, version, previous, run.request.bake_seconds, run.request.label)


def make_stable(run: PromotionRun, version: int) -> None:
    """Verify a published version that has passed, and move the label."""
    with kept_on_failure(run.deployment, version, run.mlflow.id):
        promotion.check_promotable(run.deployment, version)
        verify(run, version)
        relabel(run, version)


def tidy_up(run: PromotionRun) -> None:
    """Retire what retention does not keep, and warn about servers that would not follow the label."""
    progress.step("finishing")
    retention.tidy_after_promotion(run.deployment)
    warn_unless_stable(run.deployment)
