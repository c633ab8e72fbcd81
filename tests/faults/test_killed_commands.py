"""A command that is killed at any of its steps leaves the old state or the new one, and `reconcile` tidies up."""

from __future__ import annotations

import shutil

import pytest

from flows.journal import Journal
from flows.promotion import labelling
from flows.promotion.history import replay
from flows.promotion.labels import Labels
from flows.promotion.retirement import retire
from flows.promotion.rollback import rollback
from flows.promotion.verification import verify
from flows.reconciliation.findings import find
from flows.registry.mlflow_registry import Registry
from flows.reports.doctor import examine
from serving.repository.store import Repository
from tests.faults.bystander import answered_all_the_while
from tests.faults.points import Point, after, bake, before, command, killed_at, promote, reconcile
from tests.pipelines import Pipeline, answered, assert_whole, change_golden_answer

SOAK = pytest.mark.soak
ROLLBACK_POINTS = {
    "verified": after(verify),
    "announced": after(Journal.append),
    "config written": after(Labels.write),
    "label moved": after(labelling.move),
    "one retired": after(Repository.retire),
    "all retired": after(Repository.retire, 2),
    "journaled": after(Journal.append, 2),
    "alias set": after(Registry.set_alias),
}


def wait_loaded(pipeline: Pipeline, versions: list[int]) -> None:
    """Return when the server has exactly these versions available."""
    with pipeline.deployment.servers.running() as servers:
        assert servers is not None
        gone = sorted({1, 2, 3} - {*versions})
        for server in servers:
            server.wait_gone(pipeline.model, gone)
            for version in versions:
                server.wait_available(pipeline.model, version)


def assert_reconciled(pipeline: Pipeline, stable: int) -> None:
    """`hotswap reconcile` makes all sides agree that this version is live, and the journal tells so."""
    assert reconcile(pipeline.settings, pipeline.model) == 0
    assert find(pipeline.deployment) == []
    assert answered(pipeline, label="stable") == {stable}
    assert pipeline.registry.aliases(pipeline.model) == {"champion": stable}
    live = replay(pipeline.journal.read())
    assert (live.labels, sorted(live.published)) == ({"stable": stable}, pipeline.repository.versions(pipeline.model))


def assert_next_promotion_works(pipeline: Pipeline, kind: int, above: int) -> None:
    """It gets a number of its own, and nothing is wrong any more."""
    version = pipeline.promote(kind)
    assert version > above
    assert answered(pipeline, label="stable") == answered(pipeline) == {version}
    assert examine(pipeline.settings) == []


@pytest.mark.parametrize(
    ("point", "live", "kept"),
    [
        pytest.param(before(shutil.copyfile), 1, 1, marks=SOAK, id="half-staged"),
        pytest.param(after(Repository.stage), 1, 1, marks=SOAK, id="staged"),
        pytest.param(before(Repository.publish), 1, 1, marks=SOAK, id="announced"),
        pytest.param(after(Repository.publish), 1, 1, id="published"),
        pytest.param(after(Labels.write), 1, 1, marks=SOAK, id="configured"),
        pytest.param(after(verify), 1, 1, marks=SOAK, id="verified"),
        pytest.param(before(Repository.write_config, 2), 1, 1, marks=SOAK, id="config not yet written"),
        pytest.param(after(Labels.write, 2), 1, 2, id="config written"),
        pytest.param(after(labelling.move), 2, 2, marks=SOAK, id="label moved"),
        pytest.param(after(Registry.set_alias), 2, 2, id="alias set"),
        pytest.param(before(Journal.append, 2), 2, 2, marks=SOAK, id="tagged"),
        pytest.param(after(Journal.append, 2), 2, 2, marks=SOAK, id="journaled"),
    ],
)
def test_a_killed_promotion_is_finished_or_undone(point: Point, live: int, kept: int, pipeline: Pipeline) -> None:
    """Killed at any step: the old version is live, or the new one once its label moved; it stays if it was labelled."""
    assert pipeline.promote(1) == 1
    registered = pipeline.register(2)
    assert registered.version == 2
    with answered_all_the_while(pipeline, 1, 2, 3):
        stamp = pipeline.stamp(registered, 2)
        killed_at(point, promote, pipeline.settings, pipeline.model, registered, stamp)
        assert_whole(pipeline)
        assert answered(pipeline, label="stable") == {live}
        assert_reconciled(pipeline, kept)
        assert (2 in pipeline.repository.versions(pipeline.model)) is (kept == 2)
        assert_next_promotion_works(pipeline, 3, above=2)


@pytest.mark.parametrize(
    ("point", "retired"),
    [
        pytest.param("verified", False, marks=SOAK),
        pytest.param("announced", False, marks=SOAK),
        ("announced", True),
        ("config written", False),
        pytest.param("config written", True, marks=SOAK),
        pytest.param("label moved", False, marks=SOAK),
        ("one retired", False),
        pytest.param("all retired", False, marks=SOAK),
        pytest.param("journaled", False, marks=SOAK),
        pytest.param("alias set", False, marks=SOAK),
    ],
)
def test_a_killed_rollback_is_finished_or_changes_nothing(point: str, retired: bool, pipeline: Pipeline) -> None:
    """Killed at any step of ``rollback --to 1``: once the label has moved all later versions go, before that none."""
    moved = point not in ("verified", "announced")
    live = 1 if moved and point != "config written" else 3
    for kind in (1, 2, 3):
        assert pipeline.promote(kind) == kind
    if retired:
        retire(pipeline.deployment, 1)
    with answered_all_the_while(pipeline, 1, 2, 3):
        killed_at(ROLLBACK_POINTS[point], command, pipeline.settings, "rollback", pipeline.model, "--to", "1")
        assert_whole(pipeline)
        assert answered(pipeline, label="stable") == {live}
        assert_reconciled(pipeline, 1 if moved else 3)
        assert pipeline.repository.versions(pipeline.model) == ([1] if moved else [1, 2, 3])
        assert_next_promotion_works(pipeline, 2, above=3)


@pytest.mark.parametrize(
    "point", [pytest.param("config written", marks=SOAK), pytest.param("label moved", marks=SOAK), "one retired"]
)
def test_a_killed_rollback_that_is_asked_for_again_goes_no_further(point: str, pipeline: Pipeline) -> None:
    """Without a number it would go back one version more, as the label has moved; it is finished instead."""
    for kind in (1, 2, 3):
        assert pipeline.promote(kind) == kind
    killed_at(ROLLBACK_POINTS[point], command, pipeline.settings, "rollback", pipeline.model, "--to", "2")
    change = rollback(pipeline.deployment)
    assert (change.version, change.previous, change.retired) == (2, 3, (3,))
    assert pipeline.repository.versions(pipeline.model) == [1, 2]
    assert answered(pipeline) == answered(pipeline, label="stable") == {2}
    assert examine(pipeline.settings) == []


def test_a_killed_undo_of_a_watched_version_is_finished(pipeline: Pipeline) -> None:
    """The version that was worse does not get its label back because its alias still points to it."""
    for kind in (1, 2):
        pipeline.promote(kind)
    change_golden_answer(pipeline, 2)
    with answered_all_the_while(pipeline, 1, 2, 3):
        killed_at(after(labelling.apply), bake, pipeline.settings, pipeline.model, 2, 1)
        assert_whole(pipeline)
        assert answered(pipeline, label="stable") == {1}
        assert_reconciled(pipeline, 1)
        assert pipeline.repository.versions(pipeline.model) == [1]
        assert_next_promotion_works(pipeline, 3, above=2)


@pytest.mark.parametrize(
    ("point", "arguments", "published"),
    [
        pytest.param(before(Repository.retire), ["retire", "1"], [1, 2], marks=SOAK, id="retire-not yet"),
        pytest.param(after(Repository.retire), ["retire", "1"], [2], id="retire-moved"),
        pytest.param(after(Journal.append), ["retire", "1"], [2], marks=SOAK, id="retire-journaled"),
        pytest.param(before(Repository.restore), ["restore", "3"], [1, 2], marks=SOAK, id="restore-not yet"),
        pytest.param(after(Repository.restore), ["restore", "3"], [1, 2, 3], marks=SOAK, id="restore-moved"),
        pytest.param(before(Journal.append), ["restore", "3"], [1, 2, 3], id="restore-available"),
        pytest.param(after(Journal.append), ["restore", "3"], [1, 2, 3], marks=SOAK, id="restore-journaled"),
    ],
)
def test_a_killed_retire_or_restore_was_done_or_not(
    point: Point, arguments: list[str], published: list[int], pipeline: Pipeline
) -> None:
    """Killed at any step: the version is in or out, as a whole; the live one stays live, and the journal is told."""
    for kind in (1, 2, 3):
        pipeline.promote(kind)
    rollback(pipeline.deployment)
    with answered_all_the_while(pipeline, 1, 2, 3):
        name, version = arguments
        killed_at(point, command, pipeline.settings, name, pipeline.model, version)
        assert_whole(pipeline)
        assert answered(pipeline, label="stable") == {2}
        wait_loaded(pipeline, published)
        assert_reconciled(pipeline, 2)
        assert pipeline.repository.versions(pipeline.model) == published
        assert_next_promotion_works(pipeline, 2, above=3)


@pytest.mark.parametrize(
    ("point", "live", "kept"),
    [
        pytest.param(after(Labels.write), 2, 2, marks=SOAK, id="config written"),
        pytest.param(after(labelling.move), 1, 2, id="label moved"),
        pytest.param(after(Registry.set_alias), 1, 1, id="alias set"),
        pytest.param(after(Journal.append), 1, 1, marks=SOAK, id="journaled"),
    ],
)
def test_a_killed_label_is_where_its_alias_is(point: Point, live: int, kept: int, pipeline: Pipeline) -> None:
    """Killed at any step of ``label MODEL stable 1``: the registry decides where the label stays."""
    for kind in (1, 2):
        pipeline.promote(kind)
    with answered_all_the_while(pipeline, 1, 2):
        killed_at(point, command, pipeline.settings, "label", pipeline.model, "stable", "1")
        assert_whole(pipeline)
        assert answered(pipeline, label="stable") == {live}
        assert_reconciled(pipeline, kept)
        assert_next_promotion_works(pipeline, 2, above=2)
