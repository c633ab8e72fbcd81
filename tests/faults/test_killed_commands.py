"""A command that is killed at any of its steps leaves the old state or the new one, and `reconcile` tidies up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from flows.promotion.history import replay
from flows.promotion.retirement import retire
from flows.promotion.rollback import rollback
from flows.reconciliation.findings import find
from flows.reports.doctor import examine
from serving.repository.saved_model_files import check_complete, digest
from tests.faults.bystander import ROW, Bystander
from tests.faults.points import bake, command, finish, killed_at, promote, start
from tests.pipelines import Pipeline, answered, change_golden_answer

REPOSITORY = "serving.repository.store:Repository"
JOURNALED = "flows.promotion.change:Change.record"
WRITE_LABELS = "flows.promotion.labels:Labels.write"
ROLLBACK_POINTS = {
    "verified": "after flows.promotion.verification:verify",
    "announced": "after flows.promotion.rollback:announce",
    "config written": f"after {WRITE_LABELS}",
    "label moved": "after flows.promotion.labelling:move",
    "one retired": f"after {REPOSITORY}.retire 1",
    "all retired": f"after {REPOSITORY}.retire 2",
    "journaled": f"after {JOURNALED}",
    "alias set": "after flows.registry.mlflow_registry:Registry.set_alias",
}


@contextmanager
def answered_all_the_while(pipeline: Pipeline, *kinds: int) -> Iterator[None]:
    """During the block each request, by label or without, gets the whole answer of a version of one of these kinds."""
    url = f"{pipeline.settings.rest_url}/v1/models/{pipeline.model}"
    bystanders = [Bystander(f"{url}{how}:predict") for how in ("", "/labels/stable")]
    with ExitStack() as stack:
        for bystander in bystanders:
            bystander.start()
            stack.callback(bystander.stop)
            assert bystander.answered.wait(30)
        yield
    total = sum(ROW["instances"][0])
    expected = [{"predictions": [[total * factor + kind for factor in (1, 10, 100)]]} for kind in kinds]
    for status, text in {answer for bystander in bystanders for answer in bystander.answers}:
        assert (status, json.loads(text) in expected) == (200, True), text


def assert_whole(pipeline: Pipeline) -> None:
    """What the server polls holds complete versions only, and nobody has the lock."""
    repository, model = pipeline.repository, pipeline.model
    versions = repository.versions(model)
    assert sorted(path.name for path in repository.base_path(model).iterdir()) == sorted(map(str, versions))
    for version in versions:
        check_complete(repository.path(model, version))
        assert digest(repository.path(model, version)) == repository.stamp(model, version).digest
    with repository.lock(model, timeout_seconds=0):
        pass


def wait_loaded(pipeline: Pipeline, versions: list[int]) -> None:
    """Return when the server has exactly these versions available."""
    with pipeline.deployment.servers.running() as servers:
        assert servers is not None
        gone = sorted({1, 2, 3, 4} - {*versions})
        for server in servers:
            server.wait_gone(pipeline.model, gone)
            for version in versions:
                server.wait_available(pipeline.model, version)


def assert_reconciled(pipeline: Pipeline, stable: int) -> None:
    """`hotswap reconcile` makes all sides agree that this version is live, and the journal tells so."""
    assert finish(start(command, pipeline.settings, "reconcile", pipeline.model)) == 0
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
        pytest.param("before serving.repository.store:fsync_tree", 1, 1, id="half-staged"),
        pytest.param(f"after {REPOSITORY}.stage", 1, 1, id="staged"),
        pytest.param(f"before {REPOSITORY}.publish", 1, 1, id="announced"),
        pytest.param(f"after {REPOSITORY}.publish", 1, 1, id="published"),
        pytest.param(f"after {WRITE_LABELS} 1", 1, 1, id="configured"),
        pytest.param("after flows.promotion.verification:verify", 1, 1, id="verified"),
        pytest.param(f"before {REPOSITORY}.write_config 2", 1, 1, id="config not yet written"),
        pytest.param(f"after {WRITE_LABELS} 2", 1, 2, id="config written"),
        pytest.param("after flows.promotion.labelling:move", 2, 2, id="label moved"),
        pytest.param("after flows.registry.mlflow_registry:Registry.set_alias", 2, 2, id="alias set"),
        pytest.param("before flows.journal:Journal.append 2", 2, 2, id="tagged"),
        pytest.param("after flows.journal:Journal.append 2", 2, 2, id="journaled"),
    ],
)
def test_a_killed_promotion_is_finished_or_undone(point: str, live: int, kept: int, pipeline: Pipeline) -> None:
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
    [*((point, False) for point in ROLLBACK_POINTS), *((point, True) for point in ("announced", "config written"))],
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


@pytest.mark.parametrize("point", ["config written", "label moved", "one retired"])
def test_a_killed_rollback_that_is_asked_for_again_goes_no_further(point: str, pipeline: Pipeline) -> None:
    """Without a number it would go back one version more, as the label has moved; it is finished instead."""
    for kind in (1, 2, 3, 4):
        assert pipeline.promote(kind) == kind
    killed_at(ROLLBACK_POINTS[point], command, pipeline.settings, "rollback", pipeline.model, "--to", "2")
    change = rollback(pipeline.deployment)
    assert (change.version, change.previous, change.retired) == (2, 4, (3, 4))
    assert pipeline.repository.versions(pipeline.model) == [1, 2]
    assert answered(pipeline) == answered(pipeline, label="stable") == {2}
    assert examine(pipeline.settings) == []


def test_a_killed_undo_of_a_watched_version_is_finished(pipeline: Pipeline) -> None:
    """The version that was worse does not get its label back because its alias still points to it."""
    for kind in (1, 2):
        pipeline.promote(kind)
    change_golden_answer(pipeline, 2)
    with answered_all_the_while(pipeline, 1, 2, 3):
        killed_at("after flows.promotion.labelling:apply", bake, pipeline.settings, pipeline.model, 2, 1)
        assert_whole(pipeline)
        assert answered(pipeline, label="stable") == {1}
        assert_reconciled(pipeline, 1)
        assert pipeline.repository.versions(pipeline.model) == [1]
        assert_next_promotion_works(pipeline, 3, above=2)


@pytest.mark.parametrize(
    ("point", "arguments", "published"),
    [
        pytest.param(f"before {REPOSITORY}.retire", ["retire", "1"], [1, 2, 3], id="retire-not yet"),
        pytest.param(f"after {REPOSITORY}.retire", ["retire", "1"], [2, 3], id="retire-moved"),
        pytest.param(f"after {JOURNALED}", ["retire", "1"], [2, 3], id="retire-journaled"),
        pytest.param(f"before {REPOSITORY}.restore", ["restore", "4"], [1, 2, 3], id="restore-not yet"),
        pytest.param(f"after {REPOSITORY}.restore", ["restore", "4"], [1, 2, 3, 4], id="restore-moved"),
        pytest.param(f"before {JOURNALED}", ["restore", "4"], [1, 2, 3, 4], id="restore-available"),
        pytest.param(f"after {JOURNALED}", ["restore", "4"], [1, 2, 3, 4], id="restore-journaled"),
    ],
)
def test_a_killed_retire_or_restore_was_done_or_not(
    point: str, arguments: list[str], published: list[int], pipeline: Pipeline
) -> None:
    """Killed at any step: the version is in or out, as a whole; the live one stays live, and the journal is told."""
    for kind in (1, 2, 3, 4):
        pipeline.promote(kind)
    rollback(pipeline.deployment)
    with answered_all_the_while(pipeline, 1, 2, 3, 4):
        name, version = arguments
        killed_at(point, command, pipeline.settings, name, pipeline.model, version)
        assert_whole(pipeline)
        assert answered(pipeline, label="stable") == {3}
        wait_loaded(pipeline, published)
        assert_reconciled(pipeline, 3)
        assert pipeline.repository.versions(pipeline.model) == published
        assert_next_promotion_works(pipeline, 2, above=4)


@pytest.mark.parametrize(
    ("point", "live", "kept"),
    [
        pytest.param(f"after {WRITE_LABELS}", 3, 3, id="config written"),
        pytest.param("after flows.promotion.labelling:move", 1, 3, id="label moved"),
        pytest.param("after flows.registry.mlflow_registry:Registry.set_alias", 1, 1, id="alias set"),
        pytest.param(f"after {JOURNALED}", 1, 1, id="journaled"),
    ],
)
def test_a_killed_label_is_where_its_alias_is(point: str, live: int, kept: int, pipeline: Pipeline) -> None:
    """Killed at any step of ``label MODEL stable 1``: the registry decides where the label stays."""
    for kind in (1, 2, 3):
        pipeline.promote(kind)
    with answered_all_the_while(pipeline, 1, 2, 3):
        killed_at(point, command, pipeline.settings, "label", pipeline.model, "stable", "1")
        assert_whole(pipeline)
        assert answered(pipeline, label="stable") == {live}
        assert_reconciled(pipeline, kept)
        assert_next_promotion_works(pipeline, 2, above=3)
