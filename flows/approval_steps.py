"""
The steps of a promotion that waits for an approval.

While it waits it holds nothing: other versions may be promoted, rolled back or removed meanwhile, so what was approved
is judged again if something else has become live, and verified again in any case.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta

from prefect.runtime import flow_run

from flows.console import progress
from flows.events import Event, Kind, tell
from flows.orchestration import approvals
from flows.orchestration.approvals import Answer
from flows.promotion import approval, promotion
from flows.promotion.approval import Wait
from flows.promotion.labels import PENDING
from flows.promotion.unlabelled import warn_unless_stable
from flows.promotion_run import PromotionRun, step
from flows.promotion_steps import verify

log = logging.getLogger(__name__)

NOT_APPROVED = "not approved"
_POLL_SECONDS = 1.0


@step("pend", "labelling the version as pending", timed_as="label")
def make_pending(run: PromotionRun, version: int, was_published: bool = False) -> None:
    """Label a verified version as pending."""
    hours = run.request.approve_within
    wait = Wait(
        model=run.deployment.model,
        version=version,
        label=run.request.label,
        flow_run=str(flow_run.id),
        prefect=os.environ["PREFECT_API_URL"],
        expires=(datetime.now(UTC) + timedelta(hours=hours)).isoformat(timespec="seconds"),
        was_published=was_published,
        host=socket.gethostname(),
        home=str(run.deployment.settings.home.absolute()),
    )
    run.wait = wait
    approval.begin(run.deployment, wait)


def go_live_when_approved(run: PromotionRun, alone: Callable[[], AbstractContextManager[None]]) -> None:
    """
    Wait for the approval of the version that is pending, then move the label; one that is not approved is withdrawn.

    Args:
        run: One whose version is pending.
        alone: Holds the model's lock during its block, and judges the candidate again where something else is live.
    """
    wait = run.wait
    assert wait is not None
    warn_unless_stable(run.deployment)
    with _withdrawn_otherwise(run, wait):
        with run.timed("approval"):
            given = _answer(run, wait)
        if not given.approved:
            run.end(decision=NOT_APPROVED, reason=f"{given.reason or 'it was rejected'}, said {given.by}")
        with alone():
            verify(run, wait.version)
            _label(run, wait, given)


def _answer(run: PromotionRun, wait: Wait) -> Answer:
    """What somebody says, or that nobody does until the wait has ended."""
    model, version = wait.model, wait.version
    page = flow_run.ui_url or ""
    approvals.ask(f"Shall {model} version {version} get label {wait.label}?", approvals.seconds_until(wait.expires))
    command = f"hotswap approve {model}"
    facts = {"label": wait.label, "expires": wait.expires, "approve": command, "page": page}
    tell(run.deployment.settings, Event(Kind.APPROVAL_WANTED, model, version, f"{command} makes it live", facts))
    progress.report(f"{model} version {version} waits for an approval until {wait.expires}: `{command}`, or {page}")
    while True:
        if (given := approvals.answered() or _overtaken(run, wait)) is not None:
            return given
        time.sleep(min(_POLL_SECONDS, max(0.0, approvals.seconds_until(wait.expires))))


def _overtaken(run: PromotionRun, wait: Wait) -> Answer | None:
    """What has come before any answer."""
    labels = run.deployment.labels.read()
    if labels.get(wait.label) == wait.version:
        return Answer(True, "whoever moved the label by hand")
    if labels.get(PENDING) != wait.version:
        return Answer(False, "hotswap", "another version waits, or its label was taken away")
    if approvals.seconds_until(wait.expires) <= 0:
        return Answer(False, "hotswap", f"nobody approved it within {run.request.approve_within:g} hours")
    return None


@step("relabel", "moving the label", timed_as="label", retried=True)
def _label(run: PromotionRun, wait: Wait, given: Answer) -> None:
    """Give the version its label."""
    deployment, version = run.deployment, wait.version
    why = "; ".join(filter(None, (run.request.why, given.reason)))
    if deployment.labels.read().get(wait.label) != version:
        change = promotion.make(deployment, version, wait.label, run.mlflow.id, why or None, approved_by=given.by)
        run.note(label=wait.label, previous=change.previous, live=change.server is not None)
    approval.forget(deployment, version, f"its label was moved, said {given.by}")
    run.note(version=version)
    log.info("approved model=%s version=%d by=%s", deployment.model, version, given.by)


@contextmanager
def _withdrawn_otherwise(run: PromotionRun, wait: Wait) -> Iterator[None]:
    """Withdraw the version if the block ends in another way than by giving it its label."""
    try:
        yield
    except BaseException as exc:
        why = run.outcome.reason or str(exc) or type(exc).__name__
        with run.deployment.lock():
            approval.withdraw(run.deployment, wait, why)
        run.note(version=None)
        facts = {"run_id": run.mlflow.id}
        tell(run.deployment.settings, Event(Kind.REJECTED, wait.model, wait.version, why, facts))
        raise
