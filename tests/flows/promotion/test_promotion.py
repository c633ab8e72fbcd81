"""How a version goes live, and every way back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from flows.promotion import labelling
from flows.promotion.labelling import set_label
from flows.promotion.labels import Protected
from flows.promotion.promotion import publish
from flows.promotion.recovery import recover
from flows.promotion.retirement import restore, retire
from flows.promotion.rollback import rollback
from flows.promotion.undo import PromotionUndone
from flows.promotion.verification import verify
from flows.reports.status import status
from serving.protocol.errors import FailedPrecondition, InvalidRequest, LabelNotAssignable, VersionNotFound
from tests.pipelines import BROKEN, Pipeline, answered


def test_a_promoted_version_is_live_everywhere_under_one_number(pipeline: Pipeline) -> None:
    """Server, directory and registry have the same number; label, alias and digests agree."""
    version = pipeline.promote()
    assert answered(pipeline) == answered(pipeline, label="stable") == answered(pipeline, version=version) == {version}
    row = pipeline.row(version)
    assert (row.state, row.labels, row.aliases) == ("AVAILABLE", ("stable",), ("champion",))
    assert pipeline.registry.versions(pipeline.model) == [version]
    assert [entry.action for entry in pipeline.journal.read()] == ["publish", "promote"]


def test_the_next_version_takes_over_and_the_old_one_can_still_be_asked(pipeline: Pipeline) -> None:
    """After a second promotion both versions answer by number, and the label points to the new one."""
    first, second = pipeline.promote(1), pipeline.promote(2)
    assert second == first + 1
    assert answered(pipeline, version=first) == {first}
    assert answered(pipeline, label="stable") == answered(pipeline) == {second}
    assert pipeline.row(first).labels == ()


def test_a_version_that_answers_wrongly_is_undone(pipeline: Pipeline) -> None:
    """Golden rows that come back different leave labels, alias and directory as they were, and a record of why."""
    first = pipeline.promote(1)
    before = pipeline.live()
    with pytest.raises(PromotionUndone, match="differently") as caught:
        pipeline.promote(2, expected_kind=3)
    assert caught.value.exit_code == 5
    assert pipeline.live() == before
    assert answered(pipeline) == answered(pipeline, label="stable") == {first}
    assert pipeline.repository.retired(pipeline.model) == [first + 1]
    assert pipeline.journal.read()[-1].action == "undo"


def test_a_version_that_cannot_be_loaded_is_undone(pipeline: Pipeline) -> None:
    """A SavedModel whose variables are missing never gets the label, and the server keeps serving the old one."""
    first = pipeline.promote(1)
    before = pipeline.live()
    with pytest.raises(PromotionUndone, match="cannot load"):
        pipeline.promote(BROKEN)
    assert pipeline.live() == before
    assert answered(pipeline) == {first}


def test_a_number_is_never_used_twice(pipeline: Pipeline) -> None:
    """Versions deleted on disk and in the registry are not numbered again: the journal remembers them."""
    pipeline.promote(1)
    second = pipeline.promote(2)
    rollback(pipeline.deployment)
    shutil.rmtree(pipeline.repository.retired_path(pipeline.model, second))
    pipeline.registry._client.delete_model_version(pipeline.model, str(second))
    assert pipeline.promote(3) == second + 1


def test_rollback_goes_to_the_version_before(pipeline: Pipeline) -> None:
    """Label and alias move back, the later version is retired, and the next answers come from the earlier one."""
    first, second = pipeline.promote(1), pipeline.promote(2)
    change = rollback(pipeline.deployment)
    assert (change.version, change.previous, change.retired) == (first, second, (second,))
    assert answered(pipeline) == answered(pipeline, label="stable") == {first}
    assert (pipeline.row(first).labels, pipeline.row(first).aliases) == (("stable",), ("champion",))
    assert pipeline.row(second).state == "RETIRED"


def test_rollback_needs_somewhere_to_go(pipeline: Pipeline) -> None:
    """With one version only, rollback changes nothing and says what can be restored."""
    pipeline.promote(1)
    before = pipeline.live()
    with pytest.raises(VersionNotFound, match="hotswap status"):
        rollback(pipeline.deployment)
    assert pipeline.live() == before


def test_rollback_does_not_retire_what_another_label_needs(pipeline: Pipeline) -> None:
    """A later version that carries a label of its own is named, with the command that moves the label."""
    first, second = pipeline.promote(1), pipeline.promote(2)
    set_label(pipeline.deployment, "canary", second)
    with pytest.raises(Protected, match=f"hotswap label {pipeline.model} canary {first}"):
        rollback(pipeline.deployment)


def test_a_label_moves_with_its_alias(pipeline: Pipeline) -> None:
    """``canary`` is ``challenger`` in the registry; any other name is the same on both sides."""
    first, second = pipeline.promote(1), pipeline.promote(2)
    set_label(pipeline.deployment, "canary", first)
    set_label(pipeline.deployment, "blue", second)
    assert answered(pipeline, label="canary") == {first}
    assert pipeline.registry.aliases(pipeline.model) == {"champion": second, "challenger": first, "blue": second}


@pytest.mark.parametrize("label", ["latest", "v7", "V7", "1st", "a-b", "", "a b", "été"])
def test_names_that_one_side_refuses_are_no_labels(label: str, offline: Pipeline) -> None:
    """What the registry or the server could not carry is refused before anything moves."""
    with pytest.raises(InvalidRequest, match="cannot be a label"):
        set_label(offline.deployment, label, 1)


def test_a_label_cannot_move_to_a_version_that_is_not_available(pipeline: Pipeline) -> None:
    """A version that failed to load cannot get a label, and the label stays where it was."""
    first = pipeline.promote(1)
    (pipeline.repository.path(pipeline.model, 99)).mkdir()
    with pytest.raises((LabelNotAssignable, VersionNotFound)):
        set_label(pipeline.deployment, "stable", 99)
    assert answered(pipeline, label="stable") == {first}


@pytest.mark.parametrize("case", ["last", "labelled"])
def test_the_last_and_the_labelled_version_are_protected(case: str, pipeline: Pipeline) -> None:
    """Without a reason they stay; with one they go, the label is taken away, and the reason is in the journal."""
    version = pipeline.promote(1)
    if case == "labelled":
        version = pipeline.promote(2)
    with pytest.raises(FailedPrecondition, match="--force REASON"):
        retire(pipeline.deployment, version)
    assert version in pipeline.repository.versions(pipeline.model)
    retire(pipeline.deployment, version, force="it leaks")
    assert pipeline.row(version).state == "RETIRED"
    assert pipeline.registry.aliases(pipeline.model) == {}
    assert pipeline.journal.read()[-1].facts["why"] == "it leaks"


def test_restore_puts_a_version_back(pipeline: Pipeline) -> None:
    """A retired version answers again by its number, after its answers have been checked; no label moves."""
    first, second = pipeline.promote(1), pipeline.promote(2)
    retire(pipeline.deployment, first)
    restore(pipeline.deployment, first)
    assert answered(pipeline, version=first) == {first}
    assert answered(pipeline, label="stable") == {second}


def test_a_version_that_was_changed_while_retired_does_not_come_back(pipeline: Pipeline) -> None:
    """Restore holds the answers against those that were published, and retires the version again."""
    first, _ = pipeline.promote(1), pipeline.promote(2)
    retire(pipeline.deployment, first)
    stamp = pipeline.repository.retired_path(pipeline.model, first) / "assets.extra" / "hotswap.json"
    changed = json.loads(stamp.read_text())
    changed["golden"]["outputs"]["output"]["values"][0][0] += 1
    stamp.write_text(json.dumps(changed))
    with pytest.raises(Exception, match="golden rows"):
        restore(pipeline.deployment, first)
    assert pipeline.repository.retired(pipeline.model) == [first]


def test_without_a_server_a_version_is_verified_on_one_of_our_own(offline: Pipeline) -> None:
    """The version is checked all the same, and label and alias are written for the next start."""
    version = offline.promote(1)
    row = offline.row(version)
    assert (row.state, row.labels, row.aliases) == ("NOT SERVED", ("stable",), ("champion",))
    with pytest.raises(PromotionUndone):
        offline.promote(2, expected_kind=3)
    assert offline.row(version).labels == ("stable",)


@pytest.mark.parametrize("labelled", [False, True])
def test_the_next_promotion_tidies_an_interrupted_one(labelled: bool, pipeline: Pipeline) -> None:
    """A version that was published but not labelled goes; one that had its label already is finished."""
    first = pipeline.promote(1)
    registered = pipeline.register(2)
    with pipeline.repository.lock(pipeline.model):
        publish(
            pipeline.deployment,
            registered.version,
            registered.saved_model,
            pipeline.stamp(registered, 2),
        )
        verify(pipeline.deployment, registered.version)
        if labelled:
            labelling.move(pipeline.deployment, "stable", registered.version)
        recover(pipeline.deployment)
    expected = registered.version if labelled else first
    assert answered(pipeline, label="stable") == {expected}
    assert pipeline.registry.aliases(pipeline.model)["champion"] == expected
    assert (registered.version in pipeline.repository.versions(pipeline.model)) is labelled


def test_status_knows_disk_server_and_registry(pipeline: Pipeline) -> None:
    """A row has what publish wrote, the server's state and the registry's alias."""
    version = pipeline.promote(1)
    row = pipeline.row(version)
    assert (row.accuracy, row.run_id) == (0.5, pipeline.run.id)
    with pytest.raises(VersionNotFound, match="known are"):
        status(pipeline.settings, "nobody")


def test_the_champion_is_what_stable_points_to(offline: Pipeline) -> None:
    """Without that label, or when its version was removed, it is the highest that is published."""
    deployment, model = offline.deployment, offline.model
    assert deployment.champion is None
    first, second = offline.promote(1), offline.promote(2)
    assert deployment.champion == second
    set_label(deployment, "stable", first)
    assert deployment.champion == first
    shutil.rmtree(offline.repository.path(model, first))
    assert deployment.champion == second
    shutil.rmtree(offline.repository.path(model, second))
    assert deployment.champion is None


def test_a_server_that_wants_a_token_is_asked_with_it(offline: Pipeline, model_server: Any, tmp_path: Path) -> None:
    """With the token a version goes live as without; with another one nothing changes."""
    (tmp_path / "models.config").write_text("model_config_list {}")
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    server = model_server(model_config_file=tmp_path / "models.config", token_file=token)
    ports = {"rest_port": server.rest_port, "grpc_port": server.grpc_port, "token_file": token}
    offline.settings = offline.settings.model_copy(update=ports)
    version = offline.promote()
    assert offline.row(version).state == "AVAILABLE"
    before = offline.live()
    (tmp_path / "other").write_text("another\n")
    offline.settings = offline.settings.model_copy(update={"token_file": tmp_path / "other"})
    with pytest.raises(PromotionUndone, match="token"):
        offline.promote()
    offline.settings = offline.settings.model_copy(update={"token_file": token})
    assert offline.live() == before
