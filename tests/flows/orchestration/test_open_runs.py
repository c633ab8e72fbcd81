"""A run in MLflow that its training could not close is closed later."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.orchestration import open_runs
from flows.reconciliation.findings import find
from flows.reconciliation.repair import repair
from flows.reconciliation.state import known_models
from flows.registry.tags import FLOW_RUN
from tests.pipelines import Pipeline


@pytest.fixture
def offline(offline: Pipeline, tmp_path: Path) -> Pipeline:
    """The pipeline with a home of its own, in which no other test trains."""
    offline.settings = offline.settings.model_copy(update={"home": tmp_path / "home"})
    return offline


@pytest.mark.parametrize(("kept", "status"), [("", "KILLED"), ("FINISHED", "FINISHED"), ("FAILED", "FAILED")])
def test_a_run_is_closed_as_it_ended(kept: str, status: str, offline: Pipeline) -> None:
    """Not while its training runs; after that with the status that the training left, else as KILLED."""
    with open_runs.tracked_run(offline.settings, offline.model, "flow-run") as path:
        run = offline.registry.start_run(offline.model, "run", {}, {FLOW_RUN: "flow-run"})
        path.write_text(kept)
        assert open_runs.orphaned_runs(offline.settings) == {}
        assert find(offline.deployment) == []
    assert open_runs.orphaned_runs(offline.settings) == {offline.model: [path]}
    assert offline.model in known_models(offline.settings)
    (finding,) = repair(offline.deployment).repaired
    assert "the training of flow run flow-run has ended" in finding.what
    assert offline.registry._client.get_run(run.id).info.status == status
    assert offline.registry._client.get_run(offline.run.id).info.status == "RUNNING"
    assert open_runs.orphaned_runs(offline.settings) == {}
    assert not path.exists()
