"""From training data to live traffic: the whole way, one task a step."""

from __future__ import annotations

import logging
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from prefect import State, flow, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run
from prefect.states import Completed
from pydantic import Field

from flows.console import progress
from flows.gate.gates import Check, GateDecision, judge, judge_files
from flows.gate.noninferiority import Verdict
from flows.gate.sandbox import SandboxDecision, SandboxServer
from flows.gate.sandbox_answers import Candidate, chosen_rows
from flows.machine.workspaces import workspace
from flows.orchestration import open_runs
from flows.orchestration.prefect_records import followed, keep_markdown, keep_table, without_secrets
from flows.promotion import promotion, recovery, retention, verification
from flows.promotion.bake import bake as bake_version
from flows.promotion.change import Change
from flows.promotion.deployment import Deployment
from flows.promotion.labels import STABLE
from flows.promotion.undo import kept_on_failure, undone_on_failure
from flows.promotion.unlabelled import warn_unless_stable
from flows.promotion.verification import Verified
from flows.recipes import Recipe, Thresholds, find_recipe
from flows.registry.mlflow_errors import RegistryError
from flows.registry.mlflow_registry import FLOW_RUN, Registered, Registry
from flows.settings import Settings, apply_environment, load_settings
from flows.training import fit
from flows.training.dataset import Dataset, load_dataset
from flows.training.evaluation import Champion, Evaluation, evaluate_champion, load_predictor, slices
from flows.training.evaluation import evaluate as evaluate_saved_model
from flows.training.inspection import inspect
from serving.protocol.errors import DeadlineExceeded, IncompleteSavedModel, ServerUnavailable
from serving.protocol.redaction import redacted
from serving.repository.saved_model_files import check_complete, digest
from serving.repository.stamp import STAMP_FILE, GoldenRows, Stamp

log = logging.getLogger(__name__)

SANDBOX_REJECTED = "sandbox rejected"
_DOING = {
    "load": "loading data",
    "train": "training",
    "evaluate": "evaluating the candidate and what is live",
    "keep": "keeping the candidate in MLflow",
    "gate": "judging",
    "sandbox": "asking the candidate in a sandbox",
    "register": "registering",
    "publish": "publishing",
    "verify": "waiting until the server answers as it was judged",
    "label": "moving the label",
    "bake": "watching the new version",
}
_GOLDEN_ROWS = 5
_PROGRESS_LINES = 5


@dataclass(frozen=True, slots=True)
class TrainOutcome:
    """What one training came to."""

    decision: str
    """``passed``, ``rejected``, ``inconclusive`` or ``sandbox rejected``"""
    model: str
    version: int | None
    """None when it did not pass"""
    run_id: str
    metrics: dict[str, float]
    reason: str = ""
    """why it did not pass"""
    checks: tuple[Check, ...] = ()
    """what the gate looked at"""
    log: str = ""
    """the last lines of the sandbox's server, when that rejected it"""
    label: str = STABLE
    """what it got"""
    previous: int | None = None
    """the version that had the label before"""
    digest: str | None = None
    """of the published SavedModel"""
    server: str | None = None
    """the server that verified it"""
    live: bool = False
    """whether a running server serves it; else it waits for the next start"""
    seconds: dict[str, float] = field(default_factory=dict)
    """by step"""


Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, slots=True)
class PromotionRun:
    """What a candidate is held against, and where that is recorded."""

    settings: Settings
    deployment: Deployment
    registry: Registry
    recipe: Recipe
    thresholds: Thresholds
    allow_breaking: bool
    bake: float
    """seconds"""
    reason: str | None
    """for the journal"""
    label: str
    """what it gets when it passes"""
    run_id: str
    directory: Path
    """for the candidate's files"""
    server: SandboxServer
    clock: _Clock


@flow(name="train-and-promote", flow_run_name="train {recipe} seed {seed}")
@followed
def train_and_promote(
    recipe: str = "iris",
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42,
    epochs: Annotated[int, Field(ge=1, le=100_000)] | None = None,
    min_accuracy: Share | None = None,
    allow_breaking: bool = False,
    bake: Seconds = 0.0,
    reason: str | None = None,
    label: str = STABLE,
) -> TrainOutcome | State[TrainOutcome]:
    """
    Train `recipe`, judge it, record it, and promote what passes the gate.

    Args:
        recipe: ``iris``, ``digits``, or the dotted path of a recipe of your own.
        seed: Of the weights and of the order of the rows; the held-out rows are always the same.
        epochs: How often every row is seen; the recipe's own number when not given.
        min_accuracy: The share of held-out rows that must be recognised; the recipe's own number when not given.
        allow_breaking: Whether clients of the live version may find signatures or classes changed.
        bake: For how many seconds the new version is watched after it went live, and undone when it is worse.
        reason: What the journal keeps as the reason for its promotion.
        label: What it gets when it passes; with ``canary``, or any other than ``stable``, what is stable stays so.

    Returns:
        The outcome; one that did not pass as the state ``Rejected`` or ``Inconclusive`` of a completed run.
    """
    chosen = find_recipe(recipe)
    epochs = epochs or chosen.epochs
    params = {
        "recipe": recipe,
        "seed": seed,
        "epochs": epochs,
        "batch_size": chosen.batch_size,
        "learning_rate": chosen.learning_rate,
    }
    ask(Deployment(load_settings(), chosen.name))
    with _trial(chosen, min_accuracy, allow_breaking, bake, reason, label, params) as trial:
        with trial.clock("load"):
            dataset = load(chosen, trial.registry, trial.run_id)
        with trial.clock("train"):
            saved_model = train(chosen, dataset, trial.registry, trial.run_id, seed, epochs, trial.directory)
        return _judge_and_promote(trial, dataset, saved_model)


@flow(name="promote", flow_run_name="promote {recipe}")
@followed
def promote(
    recipe: str,
    run: str | None = None,
    saved_model: Path | None = None,
    min_accuracy: Share | None = None,
    allow_breaking: bool = False,
    bake: Seconds = 0.0,
    reason: str | None = None,
    label: str = STABLE,
    version: int | None = None,
) -> TrainOutcome | State[TrainOutcome]:
    """
    Judge a model that is there already as one that was just trained, and promote it when it passes.

    Args:
        recipe: What it is held against: the recipe's held-out rows and thresholds.
        run: The MLflow run that keeps the model.
        saved_model: Or the directory of a SavedModel with signature ``serving_default``, ``input`` to ``output``.
        min_accuracy: As in `train_and_promote`.
        allow_breaking: As in `train_and_promote`.
        bake: As in `train_and_promote`.
        reason: As in `train_and_promote`.
        label: As in `train_and_promote`.
        version: Or a published version, as a canary is, which is made the stable one.

    Returns:
        As `train_and_promote`; the outcome's run is the one that records the promotion.
    """
    chosen = find_recipe(recipe)
    candidate_of = f"run {run}" if run else f"version {version}" if version is not None else str(saved_model)
    params = {"recipe": recipe, "candidate": candidate_of}
    ask(Deployment(load_settings(), chosen.name))
    with _trial(chosen, min_accuracy, allow_breaking, bake, reason, label, params) as trial:
        with trial.clock("load"):
            dataset = load(chosen, trial.registry, trial.run_id)
            if version is not None:
                saved_model = promotion.check_promotable(trial.deployment, version)
            candidate = fetch(trial.registry, run, saved_model, trial.directory)
        return _judge_and_promote(trial, dataset, candidate, version)


@contextmanager
def _trial(
    recipe: Recipe,
    min_accuracy: float | None,
    allow_breaking: bool,
    bake: float,
    reason: str | None,
    label: str,
    params: Mapping[str, Any],
) -> Iterator[PromotionRun]:
    """Everything is checked and open before anything takes long; the sandbox starts meanwhile."""
    settings = load_settings()
    apply_environment(settings)
    deployment = Deployment(settings, recipe.name)
    deployment.repository.check_writable()
    registry = deployment.registry
    open_runs.close(settings, registry, recipe.name)
    thresholds = recipe.thresholds
    if min_accuracy is not None:
        thresholds = replace(thresholds, min_accuracy=min_accuracy)
    asked = {"min_accuracy": thresholds.min_accuracy, "allow_breaking": allow_breaking, "bake": bake, "label": label}
    clock = _Clock()
    with (
        workspace() as directory,
        _recorded(settings, registry, recipe, {**params, **asked}, clock) as run_id,
        SandboxServer(settings) as server,
    ):
        yield PromotionRun(
            settings,
            deployment,
            registry,
            recipe,
            thresholds,
            allow_breaking,
            bake,
            reason,
            label,
            run_id,
            directory,
            server,
            clock,
        )


def _judge_and_promote(
    trial: PromotionRun, dataset: Dataset, saved_model: Path, published: int | None = None
) -> TrainOutcome | State[TrainOutcome]:
    registry, run_id, clock = trial.registry, trial.run_id, trial.clock
    model, deployment = trial.recipe.name, trial.deployment
    if (refused := examine(model, saved_model, trial.thresholds, registry, run_id)) is not None:
        return _not_promoted(_judged(trial, refused, {}))
    with clock("evaluate"):
        evaluation = evaluate(saved_model, dataset, registry, run_id)
        champion = evaluate_live(deployment, saved_model, dataset, run_id)
    model_uri = ""
    if published is None:
        with clock("keep"):
            model_uri = keep(saved_model, dataset, evaluation, registry, run_id)
    judged = (saved_model, dataset, evaluation)
    with clock("gate"):
        decision = gate(model, *judged, champion, trial.thresholds, trial.allow_breaking, registry, run_id)
    outcome = _judged(trial, decision, evaluation.metrics)
    if decision.verdict is not Verdict.PASSED:
        return _not_promoted(outcome)
    with clock("sandbox"):
        tried = sandbox(deployment, trial.server, trial.recipe, saved_model, dataset, evaluation, registry, run_id)
    outcome = replace(outcome, checks=(*decision.checks, *tried.checks))
    if tried.verdict is Verdict.REJECTED:
        log.info("candidate rejected by the sandbox model=%s reason=%s", model, tried.reason)
        outcome = replace(outcome, decision=SANDBOX_REJECTED, reason=tried.reason, log=tried.log)
        return Completed(name="Rejected", message=redacted(tried.reason), data=outcome)
    # One promotion of a model at a time: its number, its directory and its labels belong together.
    with deployment.lock():
        recovery.recover(deployment)
        if deployment.champion != (champion.version if champion else None):
            # Another training was faster, so this one has to stand comparison with that.
            with clock("gate"):
                champion = evaluate_live(deployment, saved_model, dataset, run_id)
                decision = gate(model, *judged, champion, trial.thresholds, trial.allow_breaking, registry, run_id)
            outcome = replace(
                outcome,
                decision=decision.verdict.value,
                reason=decision.reason,
                checks=(*decision.checks, *tried.checks),
            )
            if decision.verdict is not Verdict.PASSED:
                return _not_promoted(outcome)
        ask(deployment)
        live = _publish(trial, *judged, model_uri) if published is None else _make_stable(trial, published)
    if trial.bake:
        with clock("bake"):
            watch(deployment, live.version, live.change.previous, trial.bake, trial.label)
    progress.step("finishing")
    retention.tidy_after_promotion(deployment)
    warn_unless_stable(deployment)
    return replace(
        outcome,
        version=live.version,
        label=trial.label,
        previous=live.change.previous,
        digest=live.digest,
        server=live.server,
        live=live.change.server is not None,
    )


@dataclass(frozen=True, slots=True)
class _Live:
    """A version that has its label."""

    version: int
    digest: str | None
    server: str
    change: Change


def _publish(trial: PromotionRun, saved_model: Path, dataset: Dataset, evaluation: Evaluation, model_uri: str) -> _Live:
    """Register, publish, verify and label a candidate that has passed, or undo it; the model's lock is held."""
    deployment, run_id = trial.deployment, trial.run_id
    with trial.clock("register"):
        registered = register(deployment, saved_model, model_uri, run_id)
    version = registered.version
    with undone_on_failure(deployment, version):
        with trial.clock("publish"):
            golden = _golden(trial.recipe, saved_model, dataset, evaluation)
            publish(deployment, registered, _stamp(registered, run_id, dataset, evaluation, golden))
        with trial.clock("verify"):
            verified = verify(deployment, version)
        with trial.clock("label"):
            change = label(deployment, version, trial.label, trial.reason)
    return _Live(version, registered.digest, verified.server, change)


def _make_stable(trial: PromotionRun, version: int) -> _Live:
    """Verify a published version that has passed, and move the label; the model's lock is held."""
    deployment, run_id = trial.deployment, trial.run_id
    with kept_on_failure(deployment, version, run_id):
        promotion.check_promotable(deployment, version)
        with trial.clock("verify"):
            verified = verify(deployment, version)
        with trial.clock("label"):
            change = relabel(deployment, version, run_id, trial.reason)
    return _Live(version, deployment.stamp(version).digest, verified.server, change)


def _judged(trial: PromotionRun, decision: GateDecision, metrics: dict[str, float]) -> TrainOutcome:
    """What a trial has come to after the gate."""
    return TrainOutcome(
        decision.verdict.value,
        trial.recipe.name,
        None,
        trial.run_id,
        metrics,
        decision.reason,
        decision.checks,
        seconds=trial.clock.seconds,
    )


def _server_was_away(task: Any, run: Any, state: State[Any]) -> bool:
    result = state.result(raise_on_failure=False)
    return isinstance(result, (ServerUnavailable, DeadlineExceeded, RegistryError))


@task(cache_policy=NO_CACHE, retries=2, retry_delay_seconds=1, retry_condition_fn=_server_was_away)
@without_secrets
def ask(deployment: Deployment) -> None:
    """See that every server answers, serves this repository, and has the same versions as the others."""
    deployment.servers.ask_first(deployment.model)


@task(cache_policy=NO_CACHE)
@without_secrets
def load(recipe: Recipe, registry: Registry, run_id: str) -> Dataset:
    """Load, check and split the recipe's data."""
    dataset = load_dataset(recipe)
    registry.log_dataset(run_id, recipe.name, dataset)
    log.info("data loaded recipe=%s train=%d test=%d", recipe.name, len(dataset.train), len(dataset.test))
    return dataset


@task(cache_policy=NO_CACHE)
@without_secrets
def train(
    recipe: Recipe, dataset: Dataset, registry: Registry, run_id: str, seed: int, epochs: int, directory: Path
) -> Path:
    """Fit the recipe's model and export it; the SavedModel's directory."""
    every = max(1, epochs // _PROGRESS_LINES)

    def tell(epoch: int, metrics: Mapping[str, float]) -> None:
        progress.step(f"training epoch {epoch} of {epochs}")
        if epoch % every == 0 or epoch == epochs:
            numbers = " ".join(f"{name}={value:.4f}" for name, value in metrics.items())
            log.info("training epoch=%d/%d %s", epoch, epochs, numbers)

    fitted = fit.fit(recipe, dataset, seed, epochs, tell)
    registry.log_history(run_id, fitted.history)
    saved_model = directory / "saved_model"
    fit.export(fitted.model, dataset, recipe.name, saved_model)
    return saved_model


@task(cache_policy=NO_CACHE)
@without_secrets
def fetch(registry: Registry, run: str | None, saved_model: Path | None, directory: Path) -> Path:
    """
    A copy of the SavedModel that a run keeps, or that is in a directory.

    Raises:
        IncompleteSavedModel: There is none, or it cannot be copied.
    """
    if run is not None:
        source = registry.download_model(run, directory / "kept")
    else:
        assert saved_model is not None
        source = saved_model
    candidate = directory / "saved_model"
    check_complete(source)
    try:
        shutil.copytree(source, candidate, ignore=shutil.ignore_patterns(STAMP_FILE.name))
    except OSError as exc:
        raise IncompleteSavedModel(f"{source} cannot be copied: {exc}; see that all of it can be read") from exc
    return candidate


@task(cache_policy=NO_CACHE)
@without_secrets
def examine(
    model: str, saved_model: Path, thresholds: Thresholds, registry: Registry, run_id: str
) -> GateDecision | None:
    """Look at the files, before anything runs them; None where they may be run."""
    decision = judge_files(inspect(saved_model), thresholds)
    if decision.verdict is Verdict.PASSED:
        return None
    _report(model, decision, registry, run_id)
    return decision


@task(cache_policy=NO_CACHE)
@without_secrets
def evaluate(saved_model: Path, dataset: Dataset, registry: Registry, run_id: str) -> Evaluation:
    """Run the exported SavedModel over the held-out rows."""
    evaluation = evaluate_saved_model(saved_model, dataset.test, len(dataset.class_names))
    registry.log_evaluation(run_id, evaluation, dataset.class_names)
    log.info("candidate evaluated accuracy=%.4f rows=%d", evaluation.accuracy, len(dataset.test))
    return evaluation


@task(cache_policy=NO_CACHE)
@without_secrets
def evaluate_live(deployment: Deployment, candidate: Path, dataset: Dataset, run_id: str) -> Champion | None:
    """Run what is live over the same rows; None where nothing is."""
    model, version = deployment.model, deployment.champion
    if version is None:
        log.info("no champion model=%s", model)
        return None
    path = deployment.repository.path(model, version)
    champion = evaluate_champion(path, version, deployment.stamp(version), candidate, dataset)
    if champion.evaluation is not None:
        deployment.registry.log_metrics(run_id, {"champion_accuracy": champion.evaluation.accuracy})
        log.info("champion evaluated version=%d accuracy=%.4f", version, champion.evaluation.accuracy)
    for note in champion.notes:
        log.warning("champion version=%d: %s", version, note)
    return champion


@task(cache_policy=NO_CACHE, retries=2, retry_delay_seconds=1, retry_condition_fn=_server_was_away)
@without_secrets
def keep(saved_model: Path, dataset: Dataset, evaluation: Evaluation, registry: Registry, run_id: str) -> str:
    """Keep the SavedModel in its run, whatever becomes of it; its address in MLflow."""
    golden = GoldenRows(dataset.test.examples[:_GOLDEN_ROWS], evaluation.probabilities[:_GOLDEN_ROWS])
    return registry.log_model(run_id, saved_model, golden)


@task(cache_policy=NO_CACHE)
@without_secrets
def gate(
    model: str,
    saved_model: Path,
    dataset: Dataset,
    evaluation: Evaluation,
    champion: Champion | None,
    thresholds: Thresholds,
    allow_breaking: bool,
    registry: Registry,
    run_id: str,
) -> GateDecision:
    """Judge the candidate, and show the report in Prefect and MLflow."""
    cut = slices(evaluation, dataset, thresholds.slice_columns)
    decision = judge(evaluation, inspect(saved_model), cut, champion, thresholds, allow_breaking)
    _report(model, decision, registry, run_id)
    return decision


def _report(model: str, decision: GateDecision, registry: Registry, run_id: str) -> None:
    registry.log_decision(run_id, decision)
    key = "gate-" + re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-")
    keep_markdown(key, decision.markdown, f"Gate of {model}")
    keep_table(f"{key}-checks", decision.table, f"Gate of {model}, check by check")
    log.info("gate decided model=%s verdict=%s", model, decision.verdict)


@task(cache_policy=NO_CACHE)
@without_secrets
def sandbox(
    deployment: Deployment,
    server: SandboxServer,
    recipe: Recipe,
    saved_model: Path,
    dataset: Dataset,
    evaluation: Evaluation,
    registry: Registry,
    run_id: str,
) -> SandboxDecision:
    """Serve the candidate beside the champion, ask it the held-out rows, and show the report in Prefect and MLflow."""
    model, rows = recipe.name, chosen_rows(len(dataset.test))
    live = deployment.champion
    decision = server.judge(
        Candidate(
            model,
            (live or 0) + 1,
            saved_model,
            dataset.test.examples[rows],
            _answers(recipe, saved_model, dataset, evaluation, rows),
            None if live is None else (live, deployment.repository.path(model, live)),
            recipe.rows_independent,
        )
    )
    server.stop()
    registry.log_sandbox(run_id, decision)
    key = "sandbox-" + re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-")
    keep_markdown(key, decision.markdown, f"Sandbox of {model}")
    log.info("sandbox decided model=%s verdict=%s", model, decision.verdict)
    return decision


@task(cache_policy=NO_CACHE, retries=2, retry_delay_seconds=1, retry_condition_fn=_server_was_away)
@without_secrets
def register(deployment: Deployment, saved_model: Path, model_uri: str, run_id: str) -> Registered:
    """Let MLflow give the kept SavedModel a number; a repetition only makes the number higher."""
    registry, above = deployment.registry, deployment.highest_version_seen()
    copy_to = saved_model.with_name("registered")
    registered = registry.register(run_id, deployment.model, model_uri, above, copy_to)
    if registered.digest != digest(saved_model):
        raise RegistryError(f"MLflow at {registry.uri} holds other files than were judged: check its artifact store")
    return registered


@task(cache_policy=NO_CACHE)
@without_secrets
def publish(deployment: Deployment, registered: Registered, stamp: Stamp) -> Path:
    """Make the registered files visible to the server, by one rename."""
    return promotion.publish(deployment, registered.version, registered.saved_model, stamp)


@task(cache_policy=NO_CACHE, retries=2, retry_delay_seconds=1, retry_condition_fn=_server_was_away)
@without_secrets
def verify(deployment: Deployment, version: int) -> Verified:
    """Wait until the version answers by number, and as it was judged."""
    return verification.verify(deployment, version)


@task(cache_policy=NO_CACHE, retries=2, retry_delay_seconds=1, retry_condition_fn=_server_was_away)
@without_secrets
def label(deployment: Deployment, version: int, label: str, reason: str | None) -> Change:
    """Move the label, and the alias with it."""
    return promotion.assign_label(deployment, version, label, reason)


@task(cache_policy=NO_CACHE, retries=2, retry_delay_seconds=1, retry_condition_fn=_server_was_away)
@without_secrets
def relabel(deployment: Deployment, version: int, run_id: str, reason: str | None) -> Change:
    """Make a published version the stable one."""
    return promotion.make_stable(deployment, version, run_id, reason)


@task(cache_policy=NO_CACHE)
@without_secrets
def watch(deployment: Deployment, version: int, previous: int | None, seconds: float, label: str) -> None:
    """Hold the new version against the one before while both are asked, and undo the promotion when it is worse."""
    bake_version(deployment, version, previous, seconds, label)


def _answers(
    recipe: Recipe, saved_model: Path, dataset: Dataset, evaluation: Evaluation, rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    """What was judged answers to these held-out rows, in a request of just these where that makes a difference."""
    if recipe.rows_independent:
        return evaluation.probabilities[rows]
    return load_predictor(saved_model)(dataset.test.examples[rows])


def _golden(recipe: Recipe, saved_model: Path, dataset: Dataset, evaluation: Evaluation) -> GoldenRows:
    rows = np.arange(min(_GOLDEN_ROWS, len(dataset.test)))
    answers = _answers(recipe, saved_model, dataset, evaluation, rows)
    return GoldenRows(dataset.test.examples[rows], answers)


def _stamp(registered: Registered, run_id: str, dataset: Dataset, evaluation: Evaluation, golden: GoldenRows) -> Stamp:
    return Stamp(
        version=registered.version,
        digest=registered.digest,
        run_id=run_id,
        dataset_digest=dataset.digest,
        features=dataset.feature_names,
        metrics=evaluation.metrics,
        published_at=datetime.now(UTC).isoformat(timespec="seconds"),
        golden=golden,
    )


def _not_promoted(outcome: TrainOutcome) -> State[TrainOutcome]:
    """The state of a flow run whose candidate did not pass: it did what it should, and nothing was published."""
    log.info("candidate %s model=%s reason=%s", outcome.decision, outcome.model, outcome.reason)
    return Completed(name=outcome.decision.capitalize(), message=redacted(outcome.reason), data=outcome)


class _Clock:
    """Measures the steps."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        progress.step(_DOING[step])
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[step] = round(time.perf_counter() - started, 3)


@contextmanager
def _recorded(
    settings: Settings, registry: Registry, recipe: Recipe, params: Mapping[str, Any], clock: _Clock
) -> Iterator[str]:
    """An MLflow run for the length of the block: FINISHED, FAILED or, by Ctrl-C, KILLED."""
    tags = {FLOW_RUN: str(flow_run.id), "prefect_flow_run_url": str(flow_run.ui_url or "")}
    with open_runs.tracked_run(settings, recipe.name, tags[FLOW_RUN]) as kept:
        run_id = registry.start_run(recipe.name, str(flow_run.name or recipe.name), params, tags)
        try:
            yield run_id
        except BaseException as exc:
            _close(registry, run_id, kept, "FAILED" if isinstance(exc, Exception) else "KILLED", clock, str(exc))
            raise
        _close(registry, run_id, kept, "FINISHED", clock)


def _close(registry: Registry, run_id: str, kept: Path, status: str, clock: _Clock, error: str = "") -> None:
    try:
        kept.write_text(status, "utf-8")
        registry.log_metrics(run_id, {f"seconds_{step}": seconds for step, seconds in clock.seconds.items()})
        if error:
            registry.tag_run(run_id, {"error": error[:500]})
        registry.end_run(run_id, status)
        kept.unlink()
    except (RegistryError, OSError) as exc:
        # What is live does not depend on it any more.
        log.warning("run not closed: `hotswap reconcile` does it run=%s status=%s error=%s", run_id, status, exc)
