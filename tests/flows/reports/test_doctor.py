"""Everything that is wrong is found, with its next step."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from clients import GrpcClient
from flows.promotion.change import Change
from flows.promotion.deployment import Deployment
from flows.promotion.labelling import set_label
from flows.promotion.retention import tidy
from flows.reports.doctor import examine
from serving.protocol.errors import ServingError
from serving.repository.files import write_atomically
from serving.repository.model_config import ModelEntry
from tests.pipelines import Pipeline, examine_without_server
from tests.waiting import until


def partial_directory(pipeline: Pipeline) -> None:
    (pipeline.repository.path(pipeline.model, 40) / "variables").mkdir(parents=True)


def foreign_directory(pipeline: Pipeline) -> None:
    (pipeline.repository.base_path(pipeline.model) / "3.bak").mkdir()


def foreign_file(pipeline: Pipeline) -> None:
    (pipeline.repository.root / "notes.txt").write_text("mine")


def staging_leftover(pipeline: Pipeline) -> None:
    (pipeline.repository.root / ".staging" / pipeline.model / "9").mkdir(parents=True)


def lock_that_is_a_directory(pipeline: Pipeline) -> None:
    (pipeline.repository.root / ".locks" / "other.lock").mkdir()


def removed_by_hand(pipeline: Pipeline) -> None:
    shutil.rmtree(pipeline.repository.path(pipeline.model, 1))


def flipped_byte(pipeline: Pipeline) -> None:
    path = pipeline.repository.path(pipeline.model, 1) / "saved_model.pb"
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")


def broken_files(pipeline: Pipeline) -> None:
    (pipeline.repository.path(pipeline.model, 1) / "variables" / "variables.index").write_bytes(b"no index")


def forged_stamp(pipeline: Pipeline) -> None:
    path = pipeline.repository.path(pipeline.model, 1) / "assets.extra" / "hotswap.json"
    digest = pipeline.repository.stamp(pipeline.model, 1).digest
    assert digest is not None
    path.write_text(path.read_text().replace(digest, "0" * 64))


def tampered_journal(pipeline: Pipeline) -> None:
    text = pipeline.journal.path.read_text()
    pipeline.journal.path.write_text(text.replace('"version": 1', '"version": 8', 1))


def broken_config(pipeline: Pipeline) -> None:
    write_atomically(pipeline.repository.config_path, "model_config_list {")


def moved_alias(pipeline: Pipeline) -> None:
    pipeline.registry.set_alias(pipeline.model, "champion", None)


def deleted_in_the_registry(pipeline: Pipeline) -> None:
    pipeline.registry._client.delete_registered_model(pipeline.model)


@pytest.mark.parametrize(
    ("harm", "reported"),
    [
        (partial_directory, "not a complete SavedModel"),
        (foreign_directory, "is not a version"),
        (foreign_file, "does not belong here"),
        (staging_leftover, "left over from an interrupted publish"),
        (lock_that_is_a_directory, "is not a lock"),
        (removed_by_hand, "gone from the directory"),
        (flipped_byte, "not those that were published"),
        (forged_stamp, "another digest than the journal"),
        (tampered_journal, "is not what was written"),
        (broken_config, "models.config"),
        (moved_alias, "alias champion is at no version"),
        (deleted_in_the_registry, "does not know the model"),
    ],
)
def test_each_harm_is_found(harm: Callable[[Pipeline], None], reported: str, offline: Pipeline) -> None:
    """A healthy repository has no finding; a harmed one has, with what to do."""
    offline.promote(1)
    assert examine_without_server(offline.settings) == []
    harm(offline)
    findings = examine(offline.settings)
    assert any(reported in finding.what for finding in findings), findings
    assert all(finding.next_step for finding in findings)


@pytest.mark.parametrize("harm", [flipped_byte, forged_stamp, deleted_in_the_registry, broken_files, moved_alias])
def test_no_advice_takes_away_what_is_live(harm: Callable[[Pipeline], None], offline: Pipeline) -> None:
    """Neither with one version nor where a later one is there that carries no label."""
    offline.promote(1)
    offline.promote(2)
    set_label(offline.deployment, "stable", 1)
    harm(offline)
    findings = [finding for finding in examine(offline.settings) if finding.version in (1, None)]
    assert findings
    assert not [step for step in (each.next_step for each in findings) if "retire" in step or "remove" in step]


def test_a_live_version_that_the_server_cannot_load_is_named_with_the_reason(
    offline: Pipeline, model_server: Any
) -> None:
    """The advice is the server's log, and never to take it out."""
    offline.promote(1)
    broken_files(offline)
    (offline.directory / "models.config").write_text("model_config_list {}")
    server = model_server(model_config_file=offline.directory / "models.config", max_num_load_retries=0)
    ports = {"rest_port": server.rest_port, "grpc_port": server.grpc_port, "server_timeout_seconds": 2.0}
    settings = offline.settings.model_copy(update=ports)
    entry = ModelEntry(offline.model, str(offline.repository.base_path(offline.model)))
    with GrpcClient(settings.grpc_target) as client, pytest.raises(ServingError, match="did not become available"):
        client.reload([entry])
    (finding,) = [each for each in examine(settings) if "the server has it as" in each.what]
    assert finding.version == 1
    assert "retire" not in finding.next_step


def test_retention_keeps_the_newest_and_the_labelled(offline: Pipeline) -> None:
    """Older versions are retired and journaled, `dry_run` only tells, and nothing is wrong afterwards."""
    versions = [offline.promote(1) for _ in range(3)]
    settings = offline.settings.model_copy(update={"keep_versions": 1})
    deployment = Deployment(settings, offline.model)
    planned = tidy(deployment, dry_run=True)
    assert planned == Change("tidy", offline.model, versions[-1], retired=tuple(versions[:2]), dry_run=True)
    assert offline.repository.versions(offline.model) == versions
    assert tidy(deployment).retired == tuple(versions[:2])
    assert offline.repository.versions(offline.model) == versions[2:]
    assert examine_without_server(settings) == []


def test_retention_leaves_a_labelled_version(offline: Pipeline) -> None:
    """However old it is."""
    first, second, third = (offline.promote(1) for _ in range(3))
    set_label(offline.deployment, "canary", first)
    settings = offline.settings.model_copy(update={"keep_versions": 1})
    assert tidy(Deployment(settings, offline.model)).retired == (second,)
    assert offline.repository.versions(offline.model) == [first, third]


def test_an_empty_place_is_healthy(offline: Pipeline, tmp_path: Path) -> None:
    """Nothing has been trained yet, and nothing is wrong."""
    assert examine(offline.settings.model_copy(update={"models_repo": tmp_path / "none"})) == []


def test_what_everybody_may_write_to_is_reported(offline: Pipeline) -> None:
    """Who may change a version decides what is served; the next step closes it again."""
    version = offline.promote(1)
    path = offline.repository.path(offline.model, version)
    path.chmod(0o777)
    (finding,) = examine_without_server(offline.settings)
    assert finding.what == f"every user of this machine may write to {path}"
    subprocess.run(finding.next_step.strip("`").split(), check=True)
    assert examine_without_server(offline.settings) == []


def test_an_address_to_notify_that_is_none_is_reported(offline: Pipeline) -> None:
    """The one that is right is told all the same; neither is shown, as an address holds secrets."""
    offline.promote(1)
    notify = SecretStr("json://127.0.0.1:1/token nonsense://127.0.0.1/token")
    (finding,) = examine_without_server(offline.settings.model_copy(update={"notify": notify}))
    assert finding.what.startswith("HOTSWAP_NOTIFY has an address that is not understood")
    assert "token" not in finding.what + finding.next_step


def test_nothing_served_is_reported(offline: Pipeline) -> None:
    """Where a version is published and no server runs, with the command that starts one."""
    offline.promote(1)
    (finding,) = examine(offline.settings)
    assert finding.what == "no model server runs at http://127.0.0.1:1 and 127.0.0.1:2, so nothing is served"
    assert "`hotswap up`" in finding.next_step


def test_all_is_well_with_a_server_that_has_everything(pipeline: Pipeline) -> None:
    """Nothing is found where every version answers."""
    pipeline.promote(1)
    assert examine(pipeline.settings) == []


def test_a_version_that_the_server_cannot_load_is_named_with_the_servers_reason(pipeline: Pipeline) -> None:
    """And is never recommended to be retired while a label points to it."""
    pipeline.promote(1)
    source = pipeline.sources(pipeline.directory / "by-hand", 1, "broken")
    (source / "variables" / "variables.index").write_bytes(b"no index")
    source.rename(pipeline.repository.path(pipeline.model, 50))
    reported = until(lambda: [each for each in examine(pipeline.settings) if "has it as END: " in each.what])
    assert reported[0].version == 50
    assert "file is too short to be an sstable" in reported[0].what


def test_an_endpoint_that_does_not_answer_is_named(replicas: tuple[Pipeline, list[Any]]) -> None:
    """With its address and the reason."""
    pipeline, servers = replicas
    pipeline.promote(1)
    servers[1].stop()
    reported = " ".join(each.what for each in examine(pipeline.settings))
    assert f"the server at http://127.0.0.1:{servers[1].rest_port} does not answer" in reported


def test_an_mlflow_that_does_not_answer_is_named_before_anything_was_trained(
    offline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first training would fail with it."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    (finding,) = examine(offline.settings)
    assert "MLflow at http://127.0.0.1:1 cannot be read (nobody answers there)" in finding.what


def test_a_prefect_that_does_not_answer_is_named(offline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an address is set; without one a training starts a server of its own."""
    monkeypatch.setenv("PREFECT_API_URL", "http://ada:secret-2@127.0.0.1:1/api")
    (finding,) = examine(offline.settings)
    assert finding.what == "no Prefect server answers at PREFECT_API_URL=http://ada:***@127.0.0.1:1/api"
