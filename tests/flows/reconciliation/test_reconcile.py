"""What was changed by hand is found, reported and repaired."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from clients import GrpcClient, RestClient
from flows.journal import Journal
from flows.local.reconciler import Reconciler
from flows.promotion import labelling
from flows.promotion.history import replay
from flows.promotion.labelling import set_label
from flows.promotion.promotion import publish
from flows.promotion.retirement import restore, retire
from flows.promotion.rollback import rollback
from flows.promotion.undo import PromotionUndone
from flows.promotion.verification import verify
from flows.reconciliation.findings import find
from flows.reconciliation.repair import repair
from flows.reconciliation.state import known_models
from flows.reports.explain import explain
from flows.reports.status import status
from serving.protocol.errors import HotswapError
from serving.repository.model_config import ModelEntry
from serving.repository.store import Repository
from serving.repository.version_policy import All
from tests.faults.points import counted
from tests.pipelines import ROWS, Pipeline, answered


def reported(pipeline: Pipeline) -> str:
    """What `status` reports as not agreeing."""
    return "; ".join(what for row in status(pipeline.settings, pipeline.model) for what in row.findings)


def assert_agreed(pipeline: Pipeline, stable: int | None) -> None:
    """Label, alias, journal, directory and server have one state, and nothing is left to do."""
    labels, aliases, published = pipeline.live()
    assert labels.get("stable") == (None if stable is None else str(stable))
    assert aliases.get("champion") == stable
    journaled = replay(pipeline.journal.read())
    assert (sorted(journaled.published), journaled.labels.get("stable")) == (list(published), stable)
    assert not any(finding.repairable for finding in find(pipeline.deployment))
    if stable is not None:
        assert answered(pipeline, label="stable") == {stable}


def test_nothing_to_do_is_nothing_found(pipeline: Pipeline) -> None:
    """After promotions, a rollback, a label and a restore all sides agree; repair writes nothing."""
    first, second, third = (pipeline.promote(kind) for kind in (1, 2, 3))
    rollback(pipeline.deployment)
    set_label(pipeline.deployment, "canary", first)
    restore(pipeline.deployment, third)
    before = pipeline.journal.path.read_bytes()
    assert find(pipeline.deployment) == []
    assert repair(pipeline.deployment).repaired == ()
    assert pipeline.journal.path.read_bytes() == before
    assert_agreed(pipeline, second)


def test_an_alias_moved_in_the_registry_takes_its_label_along(pipeline: Pipeline) -> None:
    """The page of MLflow moves ``champion``: within a turn ``stable`` is answered by that version."""
    first, second = pipeline.promote(1), pipeline.promote(2)
    pipeline.registry.set_alias(pipeline.model, "champion", first)
    assert f"label stable is at version {second}, and should be at version {first}" in reported(pipeline)
    assert pipeline.model in Reconciler(pipeline.settings).turn()
    assert_agreed(pipeline, first)


def test_a_new_alias_becomes_a_label_and_a_removed_one_takes_it_away(pipeline: Pipeline) -> None:
    """The registry decides about ``canary``; ``stable`` alone stays when its alias is taken away."""
    first, second = pipeline.promote(1), pipeline.promote(2)
    pipeline.registry.set_alias(pipeline.model, "challenger", first)
    repair(pipeline.deployment)
    assert answered(pipeline, label="canary") == {first}
    pipeline.registry.set_alias(pipeline.model, "challenger", None)
    pipeline.registry.set_alias(pipeline.model, "champion", None)
    repair(pipeline.deployment)
    assert pipeline.row(first).labels == ()
    assert_agreed(pipeline, second)


def test_a_label_does_not_follow_to_a_version_that_answers_wrongly(pipeline: Pipeline) -> None:
    """The alias goes back to the version that the label stays at."""
    first, second = pipeline.promote(1), pipeline.promote(2)
    stamp = pipeline.repository.path(pipeline.model, first) / "assets.extra" / "hotswap.json"
    stamp.write_text(stamp.read_text().replace("11.0", "12.0"))
    pipeline.registry.set_alias(pipeline.model, "champion", first)
    repair(pipeline.deployment)
    assert_agreed(pipeline, second)


def test_a_label_does_not_follow_to_a_retired_version(pipeline: Pipeline) -> None:
    """What is served is decided by the directory: the alias goes back."""
    first, second = pipeline.promote(1), pipeline.promote(2)
    retire(pipeline.deployment, first)
    pipeline.registry.set_alias(pipeline.model, "champion", first)
    repair(pipeline.deployment)
    assert_agreed(pipeline, second)


def test_removing_a_directory_by_hand_is_a_rollback(pipeline: Pipeline) -> None:
    """The server falls back, and label, alias and journal follow."""
    first, second = pipeline.promote(1), pipeline.promote(2)
    shutil.rmtree(pipeline.repository.path(pipeline.model, second))
    assert f"version {second} was published, but is gone from the directory" in reported(pipeline)
    assert pipeline.row(second).state == "MISSING"
    repair(pipeline.deployment)
    assert answered(pipeline) == {first}
    assert_agreed(pipeline, first)


def test_removing_the_whole_model_by_hand_leaves_no_label(pipeline: Pipeline) -> None:
    """Labels and aliases that point to nothing go, and the next promotion has a number of its own."""
    first = pipeline.promote(1)
    shutil.rmtree(pipeline.repository.base_path(pipeline.model))
    assert pipeline.model in known_models(pipeline.settings)
    repair(pipeline.deployment)
    assert pipeline.registry.aliases(pipeline.model) == {}
    assert find(pipeline.deployment) == []
    assert pipeline.promote(2) == first + 1


def test_a_directory_added_by_hand_is_journaled_and_its_number_is_not_used_again(pipeline: Pipeline) -> None:
    """It is served, as the directory decides that; no label moves to it."""
    first = pipeline.promote(1)
    pipeline.sources(pipeline.repository.base_path(pipeline.model), first + 6, None)
    with pipeline.deployment.servers.running() as servers:
        assert servers is not None
        servers.each(lambda server: server.wait_available(pipeline.model, first + 6))
    assert f"version {first + 6} is in the directory, but was never published" in reported(pipeline)
    repair(pipeline.deployment)
    assert answered(pipeline, version=first + 6) == {first + 6}
    assert answered(pipeline) == {first}
    assert_agreed(pipeline, first)
    shutil.rmtree(pipeline.repository.path(pipeline.model, first + 6))
    assert Journal(pipeline.settings.models_repo, pipeline.model).highest_version() == first + 6


def test_a_version_deleted_in_the_registry_loses_its_label(pipeline: Pipeline) -> None:
    """Its label falls back to the newest version that the registry has; the loss is reported until it is retired."""
    first, second = pipeline.promote(1), pipeline.promote(2)
    pipeline.registry._client.delete_model_version(pipeline.model, str(second))
    repair(pipeline.deployment)
    assert_agreed(pipeline, first)
    assert "the registry has lost it" in reported(pipeline)
    retire(pipeline.deployment, second)
    assert reported(pipeline) == ""


def test_the_versions_of_a_recreated_registered_model_are_registered_again(pipeline: Pipeline) -> None:
    """What is served goes back to the registry under its number, with the same files; nothing live has changed."""
    first, second = pipeline.promote(1), pipeline.promote(2)
    retire(pipeline.deployment, first)
    pipeline.registry._client.delete_registered_model(pipeline.model)
    pipeline.registry._client.create_registered_model(pipeline.model)
    assert "the registry has lost it" in reported(pipeline)
    repair(pipeline.deployment)
    assert reported(pipeline) == ""
    assert pipeline.registry.versions(pipeline.model) == [second]
    assert explain(pipeline.deployment, second).problems == ()
    assert_agreed(pipeline, second)
    assert pipeline.promote(3) == second + 1


def test_what_cannot_be_registered_again_stays_where_it_answers(pipeline: Pipeline) -> None:
    """With no version left in the registry the label does not move; it is reported, and tried only once."""
    first = pipeline.promote(1)
    pipeline.registry._client.delete_model_version(pipeline.model, str(first))
    repair(pipeline.deployment)
    assert answered(pipeline, label="stable") == {first}
    assert "the registry has lost it" in reported(pipeline)
    journal = pipeline.journal.path.read_bytes()
    assert repair(pipeline.deployment).repaired == ()
    assert pipeline.journal.path.read_bytes() == journal
    second = pipeline.promote(2)
    assert second > first + 1
    assert_agreed(pipeline, second)


@pytest.mark.parametrize("labelled", [False, True])
def test_the_rest_of_a_killed_promotion_is_tidied(labelled: bool, pipeline: Pipeline) -> None:
    """Without its label the new version is taken out; with it the promotion is finished."""
    first, registered = pipeline.promote(1), pipeline.register(2)
    second = registered.version
    stamp = pipeline.stamp(registered, 2)
    publish(pipeline.deployment, second, registered.saved_model, stamp)
    verify(pipeline.deployment, second)
    if labelled:
        labelling.move(pipeline.deployment, "stable", second)
    assert f"the promotion of version {second} was interrupted" in reported(pipeline)
    repair(pipeline.deployment)
    assert_agreed(pipeline, second if labelled else first)


def test_a_models_config_changed_by_hand_is_rendered_again(pipeline: Pipeline) -> None:
    """Without its labels the file and the server get them back from the registry."""
    first = pipeline.promote(1)
    pipeline.repository.write_config("model_config_list {}")
    repair(pipeline.deployment)
    assert_agreed(pipeline, first)


def test_a_dry_run_changes_nothing(pipeline: Pipeline) -> None:
    """It reports the same, and changes nothing."""
    first, _ = pipeline.promote(1), pipeline.promote(2)
    pipeline.registry.set_alias(pipeline.model, "champion", first)
    before, journal = pipeline.live(), pipeline.journal.path.read_bytes()
    planned = repair(pipeline.deployment, dry_run=True)
    assert (pipeline.live(), pipeline.journal.path.read_bytes()) == (before, journal)
    assert planned.repaired == repair(pipeline.deployment).repaired


def test_without_a_server_labels_wait_in_the_file(offline: Pipeline) -> None:
    """A repair needs no server; the label is written for the next start."""
    first, second = offline.promote(1), offline.promote(2)
    shutil.rmtree(offline.repository.path(offline.model, second))
    repair(offline.deployment)
    assert (offline.row(first).labels, offline.row(first).aliases) == (("stable",), ("champion",))


def test_a_turn_leaves_a_model_alone_that_somebody_is_changing(pipeline: Pipeline) -> None:
    """While the lock is held nothing is repaired; the turn after that does it."""
    first, _ = pipeline.promote(1), pipeline.promote(2)
    pipeline.registry.set_alias(pipeline.model, "champion", first)
    reconciler = Reconciler(pipeline.settings)
    with pipeline.repository.lock(pipeline.model):
        assert reconciler.turn() == []
    assert reconciler.turn() == [pipeline.model]
    assert reconciler.turn() == []


def test_a_turn_with_nothing_to_do_is_cheap(pipeline: Pipeline) -> None:
    """
    It takes less than 0.1 s of processor time.

    The cheapest of several counts: the server is in this process too, and what else this does is counted as well.
    """
    pipeline.promote(1)
    reconciler = Reconciler(pipeline.settings)
    reconciler.turn()
    taken = []
    for _ in range(5):
        started = time.process_time()
        assert reconciler.turn() == []
        taken.append(time.process_time() - started)
    assert min(taken) < 0.1


def test_rollback_asks_the_earlier_version_before_anything_moves(pipeline: Pipeline) -> None:
    """One that answers differently from when it was judged stays out, and nothing has changed."""
    first, second = pipeline.promote(1), pipeline.promote(2)
    stamp = pipeline.repository.path(pipeline.model, first) / "assets.extra" / "hotswap.json"
    stamp.write_text(stamp.read_text().replace("11.0", "12.0"))
    before = pipeline.live()
    with pytest.raises(PromotionUndone, match="nothing was changed"):
        rollback(pipeline.deployment)
    assert pipeline.live() == before
    assert_agreed(pipeline, second)


def test_rollback_restores_a_retired_version(pipeline: Pipeline) -> None:
    """``--to`` a retired version brings it back first; a broken one is retired again."""
    first, second = pipeline.promote(1), pipeline.promote(2)
    retire(pipeline.deployment, first)
    planned = rollback(pipeline.deployment, first, dry_run=True)
    assert (planned.retired, pipeline.repository.retired(pipeline.model)) == ((second,), [first])
    rollback(pipeline.deployment, first)
    assert_agreed(pipeline, first)


def test_rollback_to_a_damaged_retired_version_changes_nothing(pipeline: Pipeline) -> None:
    """Its files are no longer those that were published."""
    first, second = pipeline.promote(1), pipeline.promote(2)
    retire(pipeline.deployment, first)
    (pipeline.repository.retired_path(pipeline.model, first) / "saved_model.pb").write_bytes(b"damaged")
    with pytest.raises(HotswapError, match="digest"):
        rollback(pipeline.deployment, first)
    assert pipeline.repository.retired(pipeline.model) == [first]
    assert_agreed(pipeline, second)


def test_a_failed_version_is_reported(pipeline: Pipeline) -> None:
    """A directory added by hand that the server cannot load is named with its state."""
    pipeline.promote(1)
    source = pipeline.sources(pipeline.directory / "by-hand", 1, "broken")
    (source / "variables" / "variables.index").write_bytes(b"no index")
    source.rename(pipeline.repository.path(pipeline.model, 50))
    assert "version 50 is published, and the server has it as" in reported(pipeline)


def test_a_repair_says_one_thing_of_each_finding(pipeline: Pipeline) -> None:
    """What is still wrong afterwards, in whatever words, remains; the rest is repaired."""
    pipeline.promote(1)
    source = pipeline.sources(pipeline.directory / "by-hand", 1, "broken")
    (source / "variables" / "variables.index").write_bytes(b"no index")
    source.rename(pipeline.repository.path(pipeline.model, 50))
    done = repair(pipeline.deployment)
    repaired, remaining = ({each.subject for each in findings} for findings in (done.repaired, done.remaining))
    assert (repaired, remaining) == ({"directory 50"}, {"served 50"})


def test_a_dead_server_takes_no_label_away(replicas: tuple[Pipeline, list[Any]]) -> None:
    """What it has cannot be known, so nothing moves until it is back; the reconciler tries ever more rarely."""
    pipeline, (_, dead) = replicas
    pipeline.promote(1)
    version = pipeline.promote(2)
    dead.stop()
    pipeline.be_impatient()
    shutil.rmtree(pipeline.repository.path(pipeline.model, version))
    before = pipeline.repository.read_config(), pipeline.registry.aliases(pipeline.model)
    announced: list[str] = []
    reconciler = Reconciler(pipeline.settings.model_copy(update={"reconcile_seconds": 60.0}), announced.append)
    with counted(repair) as tried:
        for _ in range(4):
            assert reconciler.turn() == []
    assert len(tried) == 1
    assert (pipeline.repository.read_config(), pipeline.registry.aliases(pipeline.model)) == before
    assert len([each for each in announced if "cannot be reconciled" in each]) == 1


def test_the_reconciler_says_once_what_it_cannot_repair(pipeline: Pipeline) -> None:
    """And that everything agrees again, once it does."""
    pipeline.promote(1)
    source = pipeline.sources(pipeline.directory / "by-hand", 1, "broken")
    (source / "variables" / "variables.index").write_bytes(b"no index")
    source.rename(pipeline.repository.path(pipeline.model, 50))
    while "the server has it as END" not in reported(pipeline):
        pass  # the server has not given it up yet
    announced: list[str] = []
    reconciler = Reconciler(pipeline.settings, announced.append)
    assert reconciler.turn() == [pipeline.model]
    for _ in range(4):
        assert reconciler.turn() == []
    (sentence,) = announced
    assert sentence.startswith(f"{pipeline.model}: version 50 is published, and the server has it as END")
    shutil.rmtree(pipeline.repository.path(pipeline.model, 50))
    assert reconciler.turn() == [pipeline.model]
    assert reconciler.turn() == []
    assert announced == [sentence, f"{pipeline.model}: everything agrees again"]


def test_the_reconciler_says_whose_server_has_taken_its_ports_and_goes_on_when_that_is_gone(
    offline: Pipeline, model_server: Any, tmp_path: Path
) -> None:
    """It neither touches that server nor needs to be started again."""
    theirs = Repository(tmp_path / "theirs")
    theirs.check_writable()
    theirs.write_config("model_config_list {}")
    offline.promote(1)
    server = model_server(model_config_file=theirs.config_path)
    ports = {"rest_port": server.rest_port, "grpc_port": server.grpc_port}
    announced: list[str] = []
    reconciler = Reconciler(offline.settings.model_copy(update=ports), announced.append)
    for _ in range(3):
        assert reconciler.turn() == []
    (sentence,) = announced
    assert str(theirs.root) in sentence
    assert str(offline.repository.root) in sentence
    server.stop()
    assert reconciler.turn() == []
    assert announced == [sentence, f"{offline.model}: everything agrees again"]


def test_a_server_that_serves_something_else_is_given_back_a_model_without_versions(pipeline: Pipeline) -> None:
    """What another process made it serve under that name goes, although there is nothing to serve in its place."""
    shutil.rmtree(pipeline.repository.path(pipeline.model, pipeline.promote(1)))
    repair(pipeline.deployment)
    elsewhere = pipeline.directory / "elsewhere"
    pipeline.sources(elsewhere, 9, "7")
    with GrpcClient(pipeline.settings.grpc_target) as client:
        client.reload([ModelEntry(pipeline.model, str(elsewhere), All())])
    assert [str(elsewhere) in finding.what for finding in find(pipeline.deployment)] == [True]
    repair(pipeline.deployment)
    assert_agreed(pipeline, stable=None)


def test_a_label_waits_for_its_version(pipeline: Pipeline) -> None:
    """A reload that asks for both at once is refused by TensorFlow Serving, so the label comes second."""
    first, second = pipeline.promote(1), pipeline.promote(2)
    set_label(pipeline.deployment, "canary", first)
    with GrpcClient(pipeline.settings.grpc_target) as client:
        client.reload([])
    assert repair(pipeline.deployment).remaining == ()
    with RestClient(pipeline.settings.rest_url) as client:
        for label, version in (("stable", second), ("canary", first)):
            assert client.predict(pipeline.model, ROWS, label=label).version == version
