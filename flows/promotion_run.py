"""
One run of the flows that promote a model: what was asked for, where it is recorded, and what it has come to so far.

The steps of `train_and_promote` ask this object instead of being handed ten arguments. Its MLflow run lives as long as
it does, and ends as FINISHED, FAILED or, by Ctrl-C, KILLED.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Concatenate, NoReturn, ParamSpec, TypeVar

from prefect.runtime import flow_run

from flows.console import progress
from flows.events import Event, Kind, tell
from flows.gate.checks import Check
from flows.gate.gates import GateDecision
from flows.gate.noninferiority import Verdict
from flows.gate.sandbox import SandboxDecision
from flows.gate.sandbox_server import SandboxServer
from flows.machine.instance import running_addresses
from flows.machine.workspaces import workspace
from flows.monitoring.trainings import count_run
from flows.orchestration import open_runs
from flows.orchestration.tasks import as_task
from flows.parameters import JudgingParameters, PromoteParameters, TrainParameters
from flows.promotion.approval import Wait
from flows.promotion.deployment import Deployment
from flows.promotion.labels import STABLE
from flows.recipes import Recipe
from flows.recipes.source import source_file
from flows.registry.mlflow_access import tracking_address
from flows.registry.mlflow_errors import RegistryError
from flows.registry.run import Run
from flows.registry.tags import FLOW_RUN, source_tags
from flows.search.asked import check_asked
from flows.tables.evidence import HoldOut, evidence_of, judged_by
from flows.tables.options import recipe_of
from serving.protocol.errors import HotswapError
from serving.protocol.redaction import redacted

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

PASSED = "passed"
SANDBOX_REJECTED = "sandbox rejected"
FAILED = "failed"
"""as the metrics count a run that came to no decision, or whose promotion was undone"""


@dataclass(frozen=True, slots=True)
class TrainOutcome:
    """What one training came to."""

    decision: str
    """``passed``, ``rejected``, ``inconclusive``, ``sandbox rejected`` or ``not approved``"""
    model: str
    version: int | None
    """None when it did not pass"""
    run_id: str
    metrics: dict[str, float]
    reason: str = ""
    """why it did not pass"""
    checks: tuple[Check, ...] = ()
    """what gate and sandbox looked at"""
    log: str = ""
    """the last lines of the sandbox's server, when that rejected it"""
    unevaluated: str = ""
    """why it was not evaluated, where it was not"""
    chosen: str = ""
    """which of several candidates it is, and why"""
    judged_by: str = ""
    """how `hotswap promote` is told what it is judged by: a recipe, or the model and its rows"""
    was_there: bool = False
    """whether the same files were a version already, which is the one named here"""
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
    pages: dict[str, str] = field(default_factory=dict)
    """on the page of MLflow, the addresses of this ``run`` and of all ``runs``; empty where no page is known"""


@dataclass(frozen=True, slots=True)
class Request:
    """What is to become of a candidate."""

    recipe: Recipe
    """with the thresholds that were asked for"""
    allow_breaking: bool
    bake_seconds: float
    reason: str | None
    """for the journal"""
    label: str
    """what it gets when it passes"""
    approve_within: float = 0.0
    """hours that it waits for an approval; 0 where it needs none"""
    hold_out: HoldOut | None = None
    """the rows that it is judged by, where there is no recipe"""
    unevaluated: str | None = None
    """why it is not evaluated, where it is not"""
    judged_by: str = ""
    """how `hotswap promote` is told what the model is judged by"""

    @classmethod
    def to_train(cls, recipe: str, parameters: TrainParameters) -> Request:
        """The request of a training's parameters."""
        found = recipe_of(recipe, parameters)
        check_asked(found, parameters)
        return replace(cls._of(found, parameters), judged_by=judged_by(recipe, parameters))

    @classmethod
    def to_promote(cls, recipe: str, parameters: PromoteParameters) -> Request:
        """The request of a promotion's parameters."""
        evidence = evidence_of(recipe, parameters)
        request = cls._of(evidence.recipe, parameters)
        named = judged_by(recipe, parameters)
        return replace(request, hold_out=evidence.hold_out, unevaluated=evidence.unevaluated, judged_by=named)

    @property
    def why(self) -> str | None:
        """What the journal keeps as the reason."""
        said = (self.reason, self.unevaluated and f"not evaluated: {self.unevaluated}")
        return "; ".join(filter(None, said)) or None

    @classmethod
    def _of(cls, found: Recipe, parameters: JudgingParameters) -> Request:
        if (least := parameters["min_accuracy"]) is not None:
            found = replace(found, thresholds=replace(found.thresholds, min_accuracy=least))
        allow_breaking, bake = parameters["allow_breaking"], parameters["bake"]
        hours = parameters["approve_within"] if parameters["approve"] else 0.0
        return cls(found, allow_breaking, bake, parameters["reason"], parameters["label"], hours)

    @property
    def params(self) -> dict[str, Any]:
        """What the MLflow run keeps of it."""
        return {
            "min_accuracy": self.recipe.thresholds.min_accuracy,
            "allow_breaking": self.allow_breaking,
            "bake": self.bake_seconds,
            "label": self.label,
            **({"approve_within": self.approve_within} if self.approve_within else {}),
            **({"unevaluated": self.unevaluated} if self.unevaluated else {}),
        }


class NotPromoted(HotswapError):
    """The candidate did not pass, or is live already, so the steps that are left are not for it."""


class PromotionRun:
    """The state of one run."""

    def __init__(
        self, request: Request, deployment: Deployment, mlflow: Run, sandbox: SandboxServer, directory: Path
    ) -> None:
        self.request = request
        self.deployment = deployment
        self.mlflow = mlflow
        """the MLflow run that records it"""
        self.sandbox = sandbox
        self.directory = directory
        """for the candidate's files"""
        self.data_notes: tuple[str, ...] = ()
        """what has moved in the data since the live version was trained"""
        self.verdict = Verdict.PASSED
        self.wait: Wait | None = None
        """for an approval"""
        self.outcome = TrainOutcome(PASSED, deployment.model, None, mlflow.id, {}, judged_by=request.judged_by)
        self.note(unevaluated=request.unevaluated or "")
        self._decisions: dict[type, GateDecision | SandboxDecision] = {}

    def end(self, **facts: Any) -> NoReturn:
        """End the flow's block here, with nothing left to do."""
        self.note(**facts)
        raise NotPromoted

    def note(self, **facts: Any) -> None:
        """Add to the outcome."""
        self.outcome = replace(self.outcome, **facts)

    def require(self, decision: GateDecision | SandboxDecision) -> None:
        """
        Go on only with a candidate that has passed.

        Raises:
            NotPromoted: It has not; the outcome says why.
        """
        self._decisions[type(decision)] = decision
        self.verdict = decision.verdict
        checks = tuple(check for each in self._decisions.values() for check in each.checks)
        self.note(decision=decision.verdict.value, reason=decision.reason, checks=checks)
        if decision.verdict is Verdict.PASSED:
            return
        if isinstance(decision, SandboxDecision):
            self.note(decision=SANDBOX_REJECTED, log=decision.log)
        model, facts = self.deployment.model, {"decision": self.outcome.decision, "run_id": self.mlflow.id}
        log.info("candidate %s model=%s reason=%s", self.outcome.decision, model, decision.reason)
        tell(self.deployment.settings, Event(Kind.REJECTED, model, None, decision.reason, facts))
        raise NotPromoted(decision.reason)

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Add the time of the block to the seconds of `step`."""
        started, seconds = time.perf_counter(), self.outcome.seconds
        try:
            yield
        finally:
            seconds[step] = round(seconds.get(step, 0.0) + time.perf_counter() - started, 3)


@contextmanager
def promotion_run(request: Request, deployment: Deployment, params: Mapping[str, Any]) -> Iterator[PromotionRun]:
    """
    Check and open everything before anything takes long; the sandbox's server starts meanwhile.

    The block ends early when the candidate does not pass.
    """
    deployment.repository.check_writable()
    deployment.check_keys()
    open_runs.close(deployment.settings, deployment.registry, deployment.model)
    source = source_file(request.recipe)
    with (
        workspace() as directory,
        _recorded(deployment, {**params, **request.params}, source) as (mlflow, seconds),
        SandboxServer(deployment.settings) as sandbox,
    ):
        run = PromotionRun(request, deployment, mlflow, sandbox, directory)
        if source is not None:
            mlflow.log_source(source)
        run.note(seconds=seconds, pages=_pages(deployment, mlflow))
        with _counted(run), suppress(NotPromoted):
            yield run


@contextmanager
def _counted(run: PromotionRun) -> Iterator[None]:
    """Count what the run has come to when the block ends, for the metrics."""
    verdict = FAILED
    try:
        yield
        verdict = run.outcome.decision
    finally:
        count_run(run.deployment.settings, run.deployment.model, verdict, run.outcome.seconds, time.time())


def _pages(deployment: Deployment, run: Run) -> dict[str, str]:
    page = tracking_address()
    if not page.startswith("http"):
        page = running_addresses(deployment.settings.home).get("mlflow", "")
    if not page.startswith("http"):
        return {}
    return dict(zip(("run", "runs"), map(redacted, run.pages(page)), strict=True))


@contextmanager
def _recorded(
    deployment: Deployment, params: Mapping[str, Any], source: Path | None
) -> Iterator[tuple[Run, dict[str, float]]]:
    """An MLflow run for the length of the block, and the seconds by step that it keeps at the end."""
    model, name = deployment.model, str(flow_run.name or deployment.model)
    tags = {FLOW_RUN: str(flow_run.id), "prefect_flow_run_url": str(flow_run.ui_url or ""), **source_tags(source)}
    seconds: dict[str, float] = {}
    with open_runs.tracked_run(deployment.settings, model, tags[FLOW_RUN]) as tracked:
        run = deployment.registry.start_run(model, name, params, tags)
        try:
            yield run, seconds
        except BaseException as exc:
            status = "FAILED" if isinstance(exc, Exception) else "KILLED"
            _close(run, tracked, status, seconds, str(exc))
            raise
        _close(run, tracked, "FINISHED", seconds)


def _close(run: Run, tracked: Path, status: str, seconds: Mapping[str, float], error: str = "") -> None:
    try:
        tracked.write_text(status, "utf-8")
        run.log_metrics({f"seconds/{step}": taken for step, taken in seconds.items()})
        if error:
            run.tag({"error": error[:500]})
        run.end(status)
        tracked.unlink()
    except (RegistryError, OSError) as exc:
        # What is live does not depend on it any more.
        log.warning("run not closed: `hotswap reconcile` does it run=%s status=%s error=%s", run.id, status, exc)


def step(
    name: str, doing: str, timed_as: str = "", retried: bool = False
) -> Callable[[Callable[Concatenate[PromotionRun, P], R]], Callable[Concatenate[PromotionRun, P], R]]:
    """
    A task of a run that a terminal shows while it lasts.

    Args:
        name: Of the task.
        doing: What the terminal says.
        timed_as: The entry of the run's seconds that its time is added to; `name` when not given.
        retried: Whether it is tried again when a server or MLflow was away.
    """

    def decorate(body: Callable[Concatenate[PromotionRun, P], R]) -> Callable[Concatenate[PromotionRun, P], R]:
        made = as_task(body, name, retried)

        @functools.wraps(body)
        def call(run: PromotionRun, /, *arguments: P.args, **named: P.kwargs) -> R:
            progress.step(doing)
            with run.timed(timed_as or name):
                return made(run, *arguments, **named)

        return call

    return decorate
