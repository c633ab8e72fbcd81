"""Labels move, and go, together with their aliases or not at all."""

from __future__ import annotations

import json
import os

import pytest

from clients import GrpcClient
from flows.cli import run
from flows.promotion.labelling import remove_label, set_label
from flows.promotion.labels import Protected
from serving.protocol.errors import HotswapError, InvalidRequest
from tests.pipelines import ROWS, Pipeline


def labelled(pipeline: Pipeline, label: str) -> int | None:
    with GrpcClient(pipeline.settings.grpc_target) as grpc:
        return grpc.predict(pipeline.model, ROWS, label=label).version


def test_a_label_can_be_taken_away(pipeline: Pipeline) -> None:
    """Label and alias are gone, the version stays, the other label still answers, and the journal says so."""
    first, second = pipeline.promote(1), pipeline.promote(2)
    set_label(pipeline.deployment, "canary", first)
    change = remove_label(pipeline.deployment, "canary")
    assert (change.label, change.version) == ("canary", first)
    assert pipeline.registry.aliases(pipeline.model) == {"champion": second}
    assert labelled(pipeline, "stable") == second
    with pytest.raises(InvalidRequest, match="canary"):
        labelled(pipeline, "canary")
    assert first in pipeline.repository.versions(pipeline.model)
    assert pipeline.journal.read()[-1].facts["label"] == "canary"


def test_labels_that_cannot_be_taken_away(pipeline: Pipeline) -> None:
    """``stable`` says what is live and can only move; one that does not exist is reported with those that do."""
    pipeline.promote(1)
    with pytest.raises(Protected, match="move it with"):
        remove_label(pipeline.deployment, "stable")
    with pytest.raises(InvalidRequest, match="it has: stable"):
        remove_label(pipeline.deployment, "canary")
    assert labelled(pipeline, "stable") is not None


def test_a_label_stays_when_the_version_answers_wrongly(pipeline: Pipeline) -> None:
    """A version whose answers are not those it was published with gets no label."""
    first, second = pipeline.promote(1), pipeline.promote(2)
    stamp = pipeline.repository.path(pipeline.model, first) / "assets.extra" / "hotswap.json"
    changed = json.loads(stamp.read_text())
    changed["golden"]["outputs"]["output"]["values"][0][0] += 1
    stamp.write_text(json.dumps(changed))
    before = pipeline.live()
    with pytest.raises(HotswapError, match="golden rows"):
        set_label(pipeline.deployment, "stable", first)
    assert pipeline.live() == before
    assert labelled(pipeline, "stable") == second


def test_a_label_and_its_alias_go_back_when_the_record_cannot_be_written(pipeline: Pipeline) -> None:
    """A journal that cannot be read stops the move, and server, models.config and registry are as before."""
    first, second = pipeline.promote(1), pipeline.promote(2)
    journal = pipeline.journal.path.read_bytes()
    pipeline.journal.path.write_bytes(journal.replace(b"promote", b"demoted"))
    before = pipeline.live()
    with pytest.raises(HotswapError, match="not what was written"):
        set_label(pipeline.deployment, "stable", first)
    assert pipeline.live() == before
    assert labelled(pipeline, "stable") == second


def test_the_command_moves_and_removes(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``hotswap label`` wants a version or ``--remove``, not both and not neither."""
    version = pipeline.promote(1)
    for name in ("home", "models_repo", "rest_port", "grpc_port"):
        monkeypatch.setenv(f"HOTSWAP_{name.upper()}", str(getattr(pipeline.settings, name)))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", os.environ["MLFLOW_TRACKING_URI"])
    assert run(["label", pipeline.model, "canary", str(version)]) == 0
    assert "now points to" in capsys.readouterr().out
    assert run(["label", pipeline.model, "canary", "--remove", "--dry-run"]) == 0
    assert "Would take label canary away" in capsys.readouterr().out
    assert labelled(pipeline, "canary") == version
    assert run(["label", pipeline.model, "canary", str(version), "--dry-run"]) == 2
    capsys.readouterr()
    assert run(["label", pipeline.model, "canary", "--remove"]) == 0
    assert "no longer points to" in capsys.readouterr().out
    assert run(["label", pipeline.model, "canary"]) == 2
    assert run(["label", pipeline.model, "canary", str(version), "--remove"]) == 2
