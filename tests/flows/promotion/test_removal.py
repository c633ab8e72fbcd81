"""A whole model leaves, nothing of it is lost, and it can come back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flows.cli import run
from flows.promotion import removal
from flows.promotion.deployment import Deployment
from flows.promotion.history import history, live_at
from flows.promotion.labelling import set_label
from flows.promotion.removal import RemovalRefused
from flows.promotion.retirement import restore, retire
from flows.reconciliation.findings import find
from flows.reports.doctor import examine
from flows.reports.status import status
from serving.protocol.errors import HotswapError, ServerUnavailable, VersionNotFound
from tests.pipelines import Pipeline, answered, assert_gone, served, with_endpoints


def archive_of(pipeline: Pipeline) -> Path:
    """The only archive of the model."""
    (archive,) = (pipeline.settings.models_repo / ".removed").iterdir()
    return archive


def test_a_removed_model_is_archived_and_gone_on_purpose(pipeline: Pipeline) -> None:
    """Servers, labels and aliases let go of it, journal and registry say why, and nothing is deleted."""
    for kind in (1, 2, 3):
        pipeline.promote(kind)
    set_label(pipeline.deployment, "canary", 2)
    retire(pipeline.deployment, 1)
    removed = removal.remove(pipeline.deployment, "no longer sold")
    assert (removed.live, removed.published, removed.retired) == (3, (2, 3), (1,))
    assert removed.labels == {"stable": 3, "canary": 2}
    assert_gone(pipeline)
    assert sorted(path.name for path in Path(removed.archive).iterdir()) == ["1", "2", "3", "journal.jsonl"]
    assert pipeline.registry.versions(pipeline.model) == [1, 2, 3]
    last = history(pipeline.deployment)[0]
    assert (last.action, last.facts["why"], last.facts["archive"]) == ("remove", "no longer sold", removed.archive)
    assert live_at(pipeline.deployment, "2999-01-01").live is None


def test_a_removed_model_comes_back(pipeline: Pipeline) -> None:
    """A version is restored from the archive, and gets its label; the number of the next one is above all others."""
    for kind in (1, 2):
        pipeline.promote(kind)
    removal.remove(pipeline.deployment, "by mistake")
    with pytest.raises(VersionNotFound, match=f"`hotswap restore {pipeline.model} 2` brings a version of it back"):
        status(pipeline.settings, pipeline.model)
    restore(pipeline.deployment, 2)
    set_label(pipeline.deployment, "stable", 2)
    assert answered(pipeline, label="stable") == {2}
    assert find(pipeline.deployment) == []
    assert (archive_of(pipeline) / "1").is_dir()
    assert pipeline.promote(3) == 3


def test_a_model_that_is_trained_again_gets_new_numbers(pipeline: Pipeline) -> None:
    """Also when it was forgotten in MLflow meanwhile."""
    for kind in (1, 2):
        pipeline.promote(kind)
    removal.remove(pipeline.deployment, "no longer sold")
    pipeline.registry._client.delete_registered_model(pipeline.model)
    assert pipeline.promote(3) == 3
    assert answered(pipeline, label="stable") == {3}
    assert examine(pipeline.settings) == []


def test_without_a_reason_it_says_what_is_live(pipeline: Pipeline) -> None:
    """Nothing changes, nor does it with --dry-run."""
    pipeline.promote(1)
    before = pipeline.live()
    wanted = rf"Version 1 of '{pipeline.model}' is live \(published: 1; labels: stable 1\): .* --force REASON"
    with pytest.raises(RemovalRefused, match=wanted):
        removal.remove(pipeline.deployment)
    planned = removal.remove(pipeline.deployment, dry_run=True)
    assert (planned.dry_run, planned.published, pipeline.live()) == (True, (1,), before)


def test_the_command_prints_a_document_and_a_way_back(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``--dry-run`` says what would go, and a removal how to undo it."""
    pipeline.promote(1)
    for name in ("home", "models_repo", "rest_port", "grpc_port"):
        monkeypatch.setenv(f"HOTSWAP_{name.upper()}", str(getattr(pipeline.settings, name)))
    assert run(["remove", pipeline.model, "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["published"] == [1]
    assert run(["remove", pipeline.model]) == 1
    assert run(["remove", pipeline.model, "--force", "no longer sold"]) == 0
    assert f"`hotswap restore {pipeline.model} 1`" in capsys.readouterr().out
    assert run(["remove", pipeline.model, "--force", "again"]) == 1
    assert "it was removed" in capsys.readouterr().err


def test_what_was_never_there_cannot_be_removed(pipeline: Pipeline) -> None:
    """An unknown model gives a sentence; one of which nothing was ever published leaves its journal only."""
    with pytest.raises(VersionNotFound, match=r"There is no model 'nobody'; known are: none yet"):
        removal.remove(Deployment(pipeline.settings, "nobody"), "why not")
    pipeline.journal.append("publish", version=1)
    pipeline.journal.append("undo", version=1, why="it did not load")
    removed = removal.remove(pipeline.deployment, "it never worked")
    assert (removed.live, removed.published, removed.retired) == (None, (), ())
    assert_gone(pipeline)


def test_every_server_lets_go_of_it(replicas: tuple[Pipeline, list[Any]]) -> None:
    """With one of them down it is refused, and nothing has changed."""
    pipeline, servers = replicas
    pipeline.promote(1)
    both = pipeline.settings
    pipeline.settings = with_endpoints(both, (servers[0].rest_port, servers[0].grpc_port), (1, 2))
    with pytest.raises(HotswapError) as refused:
        removal.remove(pipeline.deployment, "no longer sold")
    assert isinstance(refused.value, ServerUnavailable)
    pipeline.settings = both
    assert served(pipeline) == {1}
    assert pipeline.deployment.labels.read() == {"stable": 1}
    assert pipeline.journal.read()[-1].action == "promote"
    removal.remove(pipeline.deployment, "no longer sold")
    assert_gone(pipeline)


def test_others_stay_as_they_are(pipeline: Pipeline) -> None:
    """A model whose name begins with that of the removed one is another one."""
    pipeline.promote(1)
    first = pipeline.model
    pipeline.begin_anew()
    pipeline.model = f"{first}-20260101T000000"
    pipeline.promote(1)
    other = pipeline.model
    pipeline.model = first
    removal.remove(Deployment(pipeline.settings, first), "no longer sold")
    assert pipeline.repository.versions(other) == [1]
    assert pipeline.repository.archived(other) == {}
    assert list(pipeline.repository.archived(first)) == [1]
    pipeline.model = other
    assert answered(pipeline, label="stable") == {1}
