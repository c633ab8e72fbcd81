"""``--approve``: a verified version waits for somebody who lets it go live, and holds nothing meanwhile."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.journal import user
from flows.promotion import approval
from flows.promotion.approval import Wait
from flows.promotion.labelling import set_label
from flows.promotion.rollback import rollback
from flows.reconciliation.findings import find
from flows.reconciliation.repair import repair
from serving.protocol.errors import InvalidRequest
from tests.faults.points import environment
from tests.pipelines import NUMBERS, Pipeline, answered
from tests.processes import Piped, hotswap, running, without_settings
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("approval")]

EXIT_NOT_APPROVED = 7


class Approvals:
    """Promotions of one model that wait, and who answers them."""

    def __init__(self, pipeline: Pipeline, prefect_api: str, sandbox: Path) -> None:
        self.pipeline = pipeline
        self._prefect_api = prefect_api
        self._environment = {
            **without_settings(),
            **environment(pipeline.settings),
            "PREFECT_API_URL": prefect_api,
            "HOTSWAP_SANDBOX_SERVER": str(sandbox),
        }

    def begin(self, kind: int, *options: str) -> Piped:
        """``hotswap promote`` of the tiny model of this kind."""
        directory = self.pipeline.directory / f"given-{next(NUMBERS)}"
        saved_model = self.pipeline.sources(directory, kind, "saved_model")
        given = ("--saved-model", str(saved_model), "--unevaluated", "a test", "--approve", *options)
        return self.promote(*given)

    def promote(self, *arguments: str) -> Piped:
        return running(self._environment, "promote", self.pipeline.model, *arguments, "--json")

    def waits(self, version: int) -> Wait:
        """The wait for this version, once Prefect has paused its run."""

        def found() -> list[Wait]:
            waits = approval.waits(self.pipeline.deployment)
            return [wait for wait in waits if wait.version == version and self._is_paused(wait)]

        return until(found)[0]

    def answer(self, *arguments: str) -> dict[str, Any]:
        """``hotswap approve``."""
        done = hotswap(self._environment, "approve", self.pipeline.model, *arguments, "--json")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def resume(self, wait: Wait) -> None:
        """The button "Resume" of Prefect's page, with the form as it is."""
        with self._prefect() as client:
            client.resume_flow_run(UUID(wait.flow_run))

    def state_of(self, wait: Wait) -> str:
        with self._prefect() as client:
            state = client.read_flow_run(UUID(wait.flow_run)).state
            assert state is not None
            return str(state.name)

    def tasks_of(self, wait: Wait) -> list[str]:
        """The names of the task runs of a flow run, without their numbers."""
        asked = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(wait.flow_run)]))
        with self._prefect() as client:
            return [run.name.rpartition("-")[0] for run in client.read_task_runs(flow_run_filter=asked)]

    def cancel(self, wait: Wait) -> None:
        """The button "Cancel" of the page."""
        from prefect.states import Cancelling

        with self._prefect() as client:
            client.set_flow_run_state(UUID(wait.flow_run), Cancelling())

    @contextmanager
    def _prefect(self) -> Iterator[Any]:
        with temporary_settings({PREFECT_API_URL: self._prefect_api}), get_client(sync_client=True) as client:
            yield client

    def _is_paused(self, wait: Wait) -> bool:
        with self._prefect() as client:
            state = client.read_flow_run(UUID(wait.flow_run)).state
            return state is not None and state.is_paused()


@pytest.fixture
def approvals(pipeline: Pipeline, prefect_api: str, forked_sandbox: Path) -> Approvals:
    return Approvals(pipeline, prefect_api, forked_sandbox)


def outcome(process: Piped, code: int) -> dict[str, Any]:
    """What a promotion came to, with this exit code."""
    output, errors = process.communicate()
    assert process.returncode == code, errors
    found: dict[str, Any] = json.loads(output)
    return found


def labels(pipeline: Pipeline) -> dict[str, int]:
    return pipeline.deployment.labels.read()


def test_what_is_approved_goes_live(approvals: Approvals) -> None:
    """Until then it answers as pending, in the place of an older one; what is stable stays, and nobody is kept out."""
    pipeline = approvals.pipeline
    pipeline.promote(1)
    older = approvals.begin(2)
    approvals.waits(2)
    newer = approvals.begin(3)
    wait = approvals.waits(3)
    assert outcome(older, EXIT_NOT_APPROVED)["reason"].startswith("another version waits")
    assert pipeline.repository.versions(pipeline.model) == [1, 3]
    assert labels(pipeline) == {"stable": 1, "pending": 3}
    assert (answered(pipeline), answered(pipeline, label="pending")) == ({1}, {3})
    with pipeline.repository.lock(pipeline.model, timeout_seconds=0):
        pass
    assert find(pipeline.deployment) == []
    assert approvals.answer("--reason", "looks good")["by"] == user()
    assert outcome(newer, 0)["previous"] == 1
    assert labels(pipeline) == {"stable": 3}
    assert pipeline.registry.aliases(pipeline.model) == {"champion": 3}
    last = pipeline.journal.read()[-1]
    assert (last.action, last.version, last.facts["approved_by"]) == ("promote", 3, user())
    assert "looks good" in last.facts["why"]
    assert approvals.state_of(wait) == "Completed"
    assert (answered(pipeline), find(pipeline.deployment)) == ({3}, [])


def test_what_is_rejected_is_taken_out_again(approvals: Approvals) -> None:
    """The exit code is 7, the journal says who and why, and what was live is live."""
    pipeline = approvals.pipeline
    pipeline.promote(1)
    process = approvals.begin(2)
    wait = approvals.waits(2)
    approvals.answer("--reject", "not this week")
    found = outcome(process, EXIT_NOT_APPROVED)
    assert (found["decision"], found["version"]) == ("not approved", None)
    assert found["reason"] == f"not this week, said {user()}"
    assert (pipeline.repository.versions(pipeline.model), labels(pipeline)) == ([1], {"stable": 1})
    assert pipeline.registry.aliases(pipeline.model) == {"champion": 1}
    assert "not this week" in pipeline.journal.read()[-1].facts["why"]
    assert approvals.state_of(wait) == "NotApproved"
    assert find(pipeline.deployment) == []
    with pytest.raises(InvalidRequest, match="waits for an approval"):
        approval.current(pipeline.deployment)


def test_what_nobody_approves_in_time_never_goes_live(approvals: Approvals) -> None:
    """After its hours it is taken out again; a canary stays one."""
    pipeline = approvals.pipeline
    pipeline.promote(1)
    canary = pipeline.promote(2, label="canary")
    command = ("--version", str(canary), "--unevaluated", "a test", "--approve", "--approve-within", "0.0005")
    found = outcome(approvals.promote(*command), EXIT_NOT_APPROVED)
    assert found["reason"] == "nobody approved it within 0.0005 hours, said hotswap"
    assert labels(pipeline) == {"stable": 1, "canary": 2}
    assert pipeline.repository.versions(pipeline.model) == [1, 2]
    assert find(pipeline.deployment) == []


def test_what_went_live_meanwhile_is_what_it_is_judged_against(approvals: Approvals) -> None:
    """The button of Prefect's page approves: the gate looks at the version again, beside the new champion."""
    pipeline = approvals.pipeline
    pipeline.promote(1)
    process = approvals.begin(2)
    wait = approvals.waits(2)
    rolled_on = pipeline.promote(3)
    approvals.resume(wait)
    found = outcome(process, 0)
    assert (found["version"], found["previous"]) == (2, rolled_on)
    assert approvals.tasks_of(wait).count("gate") == 2
    assert [each.action for each in pipeline.journal.read()][-2:] == ["promoting", "promote"]
    assert pipeline.journal.read()[-1].facts["approved_by"] == "somebody on Prefect's page"
    assert rollback(pipeline.deployment).version == 1


@pytest.mark.soak
def test_a_first_version_is_approved(approvals: Approvals) -> None:
    """Nothing of the model is live before."""
    pipeline = approvals.pipeline
    process = approvals.begin(1)
    wait = approvals.waits(1)
    assert pipeline.deployment.champion is None
    approvals.resume(wait)
    assert outcome(process, 0)["version"] == 1
    assert labels(pipeline) == {"stable": 1}


def test_a_killed_wait_leaves_the_old_state(approvals: Approvals) -> None:
    """Nothing can approve it any more, and a reconcile turn takes the version out again."""
    pipeline = approvals.pipeline
    pipeline.promote(1)
    process = approvals.begin(2)
    approvals.waits(2)
    process.kill()
    process.communicate()
    assert (answered(pipeline), labels(pipeline)["stable"]) == ({1}, 1)
    with pytest.raises(InvalidRequest, match="waits for an approval"):
        approval.current(pipeline.deployment)
    assert "nobody waits any more for the approval of version 2" in [each.what for each in find(pipeline.deployment)]
    repair(pipeline.deployment)
    assert (labels(pipeline), pipeline.repository.versions(pipeline.model)) == ({"stable": 1}, [1])
    assert find(pipeline.deployment) == []


@pytest.mark.soak
def test_a_label_that_is_moved_by_hand_is_an_approval(approvals: Approvals) -> None:
    """The flow that waits notices it, and leaves no pending label."""
    pipeline = approvals.pipeline
    pipeline.promote(1)
    process = approvals.begin(2)
    approvals.waits(2)
    set_label(pipeline.deployment, "stable", 2)
    assert outcome(process, 0)["version"] == 2
    assert labels(pipeline) == {"stable": 2}
    assert find(pipeline.deployment) == []


@pytest.mark.soak
def test_a_run_that_is_cancelled_in_prefect_is_not_approved(approvals: Approvals) -> None:
    """It ends as by Ctrl-C, and is taken out again."""
    pipeline = approvals.pipeline
    pipeline.promote(1)
    process = approvals.begin(2)
    approvals.cancel(approvals.waits(2))
    process.communicate()
    assert process.returncode == 130
    assert (labels(pipeline), pipeline.repository.versions(pipeline.model)) == ({"stable": 1}, [1])


@pytest.mark.soak
def test_ctrl_c_takes_out_what_waits(approvals: Approvals) -> None:
    """As anything else that ends the wait."""
    import signal

    pipeline = approvals.pipeline
    pipeline.promote(1)
    process = approvals.begin(2)
    approvals.waits(2)
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 130
    assert (labels(pipeline), pipeline.repository.versions(pipeline.model)) == ({"stable": 1}, [1])
