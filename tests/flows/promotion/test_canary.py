"""A canary is live beside the stable version, for clients that ask for it, and becomes the stable one later."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from flows.promotion import history, retention
from flows.promotion.bake import bake
from flows.promotion.deployment import Deployment
from flows.promotion.history import replay
from flows.promotion.labelling import remove_label
from flows.promotion.labels import alias_of
from flows.promotion.promotion import check_promotable
from flows.promotion.retirement import restore
from flows.promotion.rollback import rollback
from flows.promotion.undo import NOT_PROMOTED, PromotionUndone
from flows.reconciliation.findings import find
from flows.reconciliation.repair import repair
from serving.protocol.errors import InvalidRequest, VersionNotFound
from tests.pipelines import Pipeline, answered, change_golden_answer


def labels(pipeline: Pipeline) -> dict[str, int]:
    return pipeline.deployment.labels.read()


def assert_live(pipeline: Pipeline, **expected: int) -> None:
    """Exactly these labels are answered so, and all sides agree; a request without a label gets the stable version."""
    assert labels(pipeline) == replay(pipeline.journal.read()).labels == expected
    assert pipeline.registry.aliases(pipeline.model) == {
        alias_of(label): version for label, version in expected.items()
    }
    for label, version in expected.items():
        assert answered(pipeline, label=label) == {version}
    assert answered(pipeline) == {expected["stable"]}
    assert find(pipeline.deployment) == []


def test_a_canary_leaves_what_is_stable_alone(pipeline: Pipeline) -> None:
    """It has label and alias of its own, and the next one takes them over."""
    assert [pipeline.promote(1), pipeline.promote(2, label="canary")] == [1, 2]
    assert_live(pipeline, stable=1, canary=2)
    assert pipeline.deployment.champion == 1
    assert pipeline.promote(3, label="canary") == 3
    assert_live(pipeline, stable=1, canary=3)
    assert pipeline.promote(4) == 4
    assert_live(pipeline, stable=4, canary=3)


def test_a_canary_that_answers_wrongly_is_undone(pipeline: Pipeline) -> None:
    """The one before it stays the canary."""
    pipeline.promote(1)
    pipeline.promote(2, label="canary")
    with pytest.raises(PromotionUndone, match="differently"):
        pipeline.promote(3, expected_kind=9, label="canary")
    assert_live(pipeline, stable=1, canary=2)
    assert pipeline.repository.versions(pipeline.model) == [1, 2]


def test_a_canary_becomes_the_stable_version(pipeline: Pipeline) -> None:
    """It is no canary any more, and a rollback goes back to what was stable before."""
    pipeline.promote(1)
    version = pipeline.promote(2, label="canary")
    pipeline.make_stable(version)
    assert_live(pipeline, stable=version)
    assert rollback(pipeline.deployment).version == 1
    assert_live(pipeline, stable=1)


def test_another_canary_stays_when_a_version_becomes_stable(pipeline: Pipeline) -> None:
    """Only the version that becomes stable loses that label."""
    pipeline.promote(1)
    earlier = pipeline.promote(2, label="canary")
    canary = pipeline.promote(3, label="canary")
    pipeline.make_stable(earlier)
    assert_live(pipeline, stable=earlier, canary=canary)


def test_a_canary_that_answers_wrongly_does_not_become_stable(pipeline: Pipeline) -> None:
    """All labels stay where they are, the version stays published, and the journal says why."""
    pipeline.promote(1)
    version = pipeline.promote(2, label="canary")
    change_golden_answer(pipeline, version)
    with pytest.raises(PromotionUndone, match="is not made stable, and stays as it was"):
        pipeline.make_stable(version)
    assert_live(pipeline, stable=1, canary=version)
    last = pipeline.journal.read()[-1]
    assert (last.action, last.version) == (NOT_PROMOTED, version)
    assert "differently" in last.facts["why"]


def test_only_a_published_version_that_is_not_stable_can_become_stable(pipeline: Pipeline) -> None:
    """The refusal says which there are."""
    version = pipeline.promote(1)
    with pytest.raises(InvalidRequest, match=f"Version {version} of '{pipeline.model}' is the stable one already"):
        check_promotable(pipeline.deployment, version)
    with pytest.raises(VersionNotFound, match=r"Version 9 .* is not published; published are: 1"):
        check_promotable(pipeline.deployment, 9)


def test_a_rollback_leaves_a_canary_where_it_is(pipeline: Pipeline) -> None:
    """What is above the stable version and carries another label is not what was wrong with it."""
    for kind in (1, 2):
        pipeline.promote(kind)
    pipeline.promote(3, label="canary")
    pipeline.promote(4, label="blue")
    change = rollback(pipeline.deployment)
    assert (change.version, change.retired) == (1, (2,))
    assert_live(pipeline, stable=1, canary=3, blue=4)


def test_a_rollback_goes_to_a_version_that_was_stable(pipeline: Pipeline) -> None:
    """Neither a canary that was given up nor one that was rolled back from is what was live before."""
    pipeline.promote(1)
    pipeline.promote(2)
    rollback(pipeline.deployment)
    restore(pipeline.deployment, 2)
    pipeline.promote(3, label="canary")
    remove_label(pipeline.deployment, "canary")
    pipeline.promote(4)
    assert rollback(pipeline.deployment).version == 1
    assert_live(pipeline, stable=1)


@pytest.mark.parametrize("lost_by", ["directory", "registry"])
def test_nothing_that_was_never_stable_takes_over_by_itself(pipeline: Pipeline, lost_by: str) -> None:
    """When the stable version is removed by hand or deleted in MLflow, the last that was stable takes its place."""
    pipeline.promote(1)
    pipeline.promote(2, label="canary")
    remove_label(pipeline.deployment, "canary")
    pipeline.promote(3)
    canary = pipeline.promote(4, label="canary")
    if lost_by == "directory":
        shutil.rmtree(pipeline.repository.path(pipeline.model, 3))
    else:
        pipeline.registry._client.delete_model_version(pipeline.model, "3")
    repair(pipeline.deployment)
    assert labels(pipeline) == {"stable": 1, "canary": canary}
    assert answered(pipeline) == {1}


def test_retention_keeps_canary_and_stable_version(pipeline: Pipeline) -> None:
    """Whichever of them is the newest."""
    pipeline.promote(1)
    pipeline.promote(2, label="canary")
    pipeline.promote(3, label="canary")
    few = pipeline.settings.model_copy(update={"keep_versions": 1})
    assert retention.tidy(Deployment(few, pipeline.model)).retired == (2,)
    assert_live(pipeline, stable=1, canary=3)


def test_a_canary_is_watched_beside_the_stable_version(pipeline: Pipeline) -> None:
    """When it is worse, the canary before it comes back, and what is stable was never touched."""
    pipeline.promote(1)
    before = pipeline.promote(2, label="canary")
    version = pipeline.promote(3, label="canary")
    change_golden_answer(pipeline, version)
    with pytest.raises(PromotionUndone, match="differently"):
        bake(pipeline.deployment, version, before, seconds=30.0, label="canary")
    assert_live(pipeline, stable=1, canary=before)
    assert pipeline.repository.versions(pipeline.model) == [1, before]


def test_a_first_version_may_be_a_canary(pipeline: Pipeline) -> None:
    """Nothing is stable then, so nothing is compared with it."""
    version = pipeline.promote(1, label="canary")
    assert pipeline.deployment.champion is None
    assert labels(pipeline) == {"canary": version}
    pipeline.make_stable(version)
    assert_live(pipeline, stable=version)


def test_without_a_server_a_canary_waits_for_the_next_start(offline: Pipeline) -> None:
    """Labels and aliases are written all the same."""
    offline.promote(1)
    version = offline.promote(2, label="canary")
    assert labels(offline) == {"stable": 1, "canary": version}
    offline.make_stable(version)
    assert labels(offline) == {"stable": version}
    assert offline.registry.aliases(offline.model) == {"champion": version}


def test_history_tells_of_a_canary(pipeline: Pipeline) -> None:
    """What was live at a time has both labels."""
    pipeline.promote(1)
    pipeline.promote(2, label="canary")
    moment: Any = history.live_at(pipeline.deployment, "2999-01-01T00:00")
    assert (moment.live, moment.labels) == (1, {"stable": 1, "canary": 2})
