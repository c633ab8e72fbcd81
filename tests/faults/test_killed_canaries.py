"""A canary whose promotion is killed at any step is a canary or gone; one that was to become stable is so or is not."""

from __future__ import annotations

import pytest

from flows.journal import Journal
from flows.promotion import labelling
from flows.promotion.history import replay
from flows.promotion.labels import Labels, alias_of
from flows.promotion.verification import verify
from flows.reconciliation.findings import find
from flows.registry.mlflow_registry import Registry
from flows.reports.doctor import examine
from serving.repository.store import Repository
from tests.faults.bystander import answered_all_the_while
from tests.faults.points import Point, after, before, killed_at, make_stable, promote, reconcile
from tests.pipelines import Pipeline, answered, assert_whole

SOAK = pytest.mark.soak


def assert_reconciled(pipeline: Pipeline, **labels: int) -> None:
    """`hotswap reconcile` makes all sides agree on these labels, and a next promotion finds nothing to tidy."""
    assert reconcile(pipeline.settings, pipeline.model) == 0
    assert find(pipeline.deployment) == []
    assert pipeline.deployment.labels.read() == labels
    assert replay(pipeline.journal.read()).labels == labels
    assert pipeline.registry.aliases(pipeline.model) == {alias_of(label): version for label, version in labels.items()}
    for label, version in labels.items():
        assert answered(pipeline, label=label) == {version}
    assert answered(pipeline) == {labels["stable"]}
    assert examine(pipeline.settings) == []


@pytest.mark.parametrize(
    ("point", "kept"),
    [
        pytest.param(after(Repository.publish), False, id="published"),
        pytest.param(after(verify), False, marks=SOAK, id="verified"),
        pytest.param(after(Labels.write, 2), True, marks=SOAK, id="config written"),
        pytest.param(after(labelling.move), True, id="label moved"),
        pytest.param(after(Registry.set_alias), True, marks=SOAK, id="alias set"),
        pytest.param(before(Journal.append, 2), True, marks=SOAK, id="tagged"),
    ],
)
def test_a_killed_canary_promotion_never_touches_what_is_stable(point: Point, kept: bool, pipeline: Pipeline) -> None:
    """It is finished as a canary when its label had moved, else undone: the canary before it stays."""
    pipeline.promote(1)
    pipeline.promote(2, label="canary")
    registered = pipeline.register(3)
    with answered_all_the_while(pipeline, 1):
        stamp = pipeline.stamp(registered, 3)
        killed_at(point, promote, pipeline.settings, pipeline.model, registered, stamp, "canary")
        assert_whole(pipeline)
        assert_reconciled(pipeline, stable=1, canary=3 if kept else 2)
    assert (3 in pipeline.repository.versions(pipeline.model)) is kept


@pytest.mark.parametrize(
    ("point", "finished"),
    [
        pytest.param(after(verify), False, marks=SOAK, id="verified"),
        pytest.param(after(Journal.append), False, id="announced"),
        pytest.param(after(Labels.write), True, id="config written"),
        pytest.param(after(labelling.move), True, marks=SOAK, id="label moved"),
        pytest.param(after(Registry.set_alias), True, marks=SOAK, id="champion set"),
        pytest.param(after(Registry.set_alias, 2), True, marks=SOAK, id="challenger removed"),
        pytest.param(after(Journal.append, 2), True, marks=SOAK, id="journaled"),
    ],
)
def test_a_killed_promotion_of_a_canary_is_finished_or_changes_nothing(
    point: Point, finished: bool, pipeline: Pipeline
) -> None:
    """Once the label has moved it is stable and no canary any more; before that it stays the canary."""
    pipeline.promote(1)
    pipeline.promote(2, label="canary")
    with answered_all_the_while(pipeline, 1, 2):
        killed_at(point, make_stable, pipeline.settings, pipeline.model, 2)
        assert_whole(pipeline)
        if finished:
            assert_reconciled(pipeline, stable=2)
        else:
            assert_reconciled(pipeline, stable=1, canary=2)
    assert pipeline.repository.versions(pipeline.model) == [1, 2]
    assert pipeline.promote(3) == 3
