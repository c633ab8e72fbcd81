"""A removal that is killed at any step has not begun, or is finished."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.endpoints.live_server import LiveServer
from flows.journal import Journal
from flows.promotion import removal
from flows.promotion.history import replay
from flows.promotion.labels import Labels
from flows.promotion.retirement import retire
from flows.reconciliation.findings import find
from flows.registry.mlflow_registry import Registry
from flows.reports.doctor import examine
from serving.repository.store import Repository
from tests.faults.points import Point, after, before, command, killed_at, reconcile
from tests.pipelines import Pipeline, answered, assert_gone

POINTS = {
    "config written": after(Labels.forget),
    "unloaded": after(LiveServer.wait_gone),
    "one archived": after(Path.rename),
    "two archived": after(Path.rename, 2),
    "all archived": after(Repository.archive),
    "registry told": after(Registry.mark_removed),
    "journaled": after(Journal.append, 2),
}
SHORT = "all archived"
"""what nobody knows of"""


def killed(pipeline: Pipeline, point: Point) -> None:
    """A removal of a model with three versions, one of them retired, that is killed at a point."""
    for kind in (1, 2, 3):
        pipeline.promote(kind)
    retire(pipeline.deployment, 1)
    killed_at(point, command, pipeline.settings, "remove", pipeline.model, "--force", "no longer sold")


@pytest.mark.parametrize(
    "point",
    [pytest.param(POINTS[name], marks=() if name == SHORT else pytest.mark.soak, id=name) for name in POINTS],
)
def test_a_killed_removal_is_finished(point: Point, pipeline: Pipeline) -> None:
    """`hotswap reconcile` does what is left, and another training gets a number of its own."""
    killed(pipeline, point)
    assert reconcile(pipeline.settings, pipeline.model) == 0
    assert_gone(pipeline)
    assert list(pipeline.repository.archived(pipeline.model)) == [1, 2, 3]
    assert pipeline.journal.read()[-1].facts["why"] == "no longer sold"
    assert pipeline.promote(2) == 4
    assert examine(pipeline.settings) == []


@pytest.mark.parametrize("again", ["remove", "train"])
def test_a_killed_removal_is_finished_by_the_next_command(again: str, pipeline: Pipeline) -> None:
    """Asking for it again needs no reason; a training finishes it before it begins."""
    killed(pipeline, POINTS["one archived"])
    if again == "remove":
        assert removal.remove(pipeline.deployment).published == (2, 3)
        assert_gone(pipeline)
    else:
        assert pipeline.promote(2) == 4
        assert answered(pipeline) == {4}
    assert list(pipeline.repository.archived(pipeline.model)) == [1, 2, 3]
    assert examine(pipeline.settings) == []


def test_a_removal_that_was_only_announced_has_changed_nothing(pipeline: Pipeline) -> None:
    """All goes on as before, and it can be asked for again."""
    killed(pipeline, before(Labels.forget))
    assert answered(pipeline, label="stable") == {3}
    assert find(pipeline.deployment) == []
    assert replay(pipeline.journal.read()).labels == {"stable": 3}
    removal.remove(pipeline.deployment, "no longer sold")
    assert_gone(pipeline)
