"""What is published is not labelled, trained on or taken back in another MLflow than it was registered in."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest

from flows.journal import Journal
from flows.promotion import removal
from flows.promotion.labelling import remove_label, set_label
from flows.promotion.labels import CANARY, STABLE
from flows.promotion.retirement import retire
from flows.promotion.rollback import rollback
from flows.registry.mlflow_errors import RegistryError
from tests.flows.registry.databases import another_database_with_such_a_model
from tests.pipelines import Pipeline
from tests.processes import hotswap, without_settings

Commands = Callable[[Pipeline], object]


def move_a_label(pipeline: Pipeline) -> object:
    return set_label(pipeline.deployment, STABLE, 1)


def take_a_label_away(pipeline: Pipeline) -> object:
    return remove_label(pipeline.deployment, CANARY)


def begin_a_training(pipeline: Pipeline) -> object:
    return pipeline.deployment.open_registry()


def retire_what_is_labelled(pipeline: Pipeline) -> object:
    return retire(pipeline.deployment, 2, "it is broken")


def remove_the_model(pipeline: Pipeline) -> object:
    return removal.remove(pipeline.deployment, "no longer sold")


@pytest.fixture
def labelled(offline: Pipeline) -> Pipeline:
    """Version 2 is stable, and version 1 the canary."""
    for kind in (1, 2):
        offline.promote(kind)
    set_label(offline.deployment, CANARY, 1)
    return offline


LABELS_AND_TRAININGS: tuple[Commands, ...] = (move_a_label, take_a_label_away, begin_a_training)


def test_an_mlflow_that_does_not_know_the_model_ends_the_command(
    labelled: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence asks for the address and says how to go on on purpose; nothing changes, and no database appears."""
    before, journal = labelled.live(), labelled.journal.path.read_bytes()
    here = os.environ["MLFLOW_TRACKING_URI"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/another.db")
    for command in LABELS_AND_TRAININGS:
        with pytest.raises(
            RegistryError, match=r"does not know the model .* is MLFLOW_TRACKING_URI the right one\?.*create"
        ):
            command(labelled)
    assert not (tmp_path / "another.db").exists()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", here)
    assert (labelled.live(), labelled.journal.path.read_bytes()) == (before, journal)


def test_an_mlflow_with_another_model_of_that_name_ends_the_command(
    labelled: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing changes, neither here nor there."""
    before, journal = labelled.live(), labelled.journal.path.read_bytes()
    here = os.environ["MLFLOW_TRACKING_URI"]
    there = another_database_with_such_a_model(labelled, tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", there)
    for command in (*LABELS_AND_TRAININGS, retire_what_is_labelled, remove_the_model):
        with pytest.raises(RegistryError, match=r"has another version 1 .* is MLFLOW_TRACKING_URI the right one\?"):
            command(labelled)
    assert _aliases(there, labelled.model) == {"champion": 1}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", here)
    assert (labelled.live(), labelled.journal.path.read_bytes()) == (before, journal)


def test_a_rollback_does_not_touch_another_mlflow(
    offline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is done all the same, and says what to repeat once the address is right."""
    for kind in (1, 2, 3):
        offline.promote(kind)
    here = os.environ["MLFLOW_TRACKING_URI"]
    there = another_database_with_such_a_model(offline, tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", there)
    assert rollback(offline.deployment).version == 2
    assert _aliases(there, offline.model) == {"champion": 1}
    assert f"repeat `hotswap label {offline.model} stable 2` later" in caplog.text
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/new.db")
    assert rollback(offline.deployment).version == 1
    assert not (tmp_path / "new.db").exists()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", here)
    set_label(offline.deployment, STABLE, 1)
    assert offline.registry.aliases(offline.model) == {"champion": 1}


def test_a_model_that_was_created_again_goes_on(
    labelled: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the sentence says, in a new MLflow too."""
    there = f"sqlite:///{tmp_path}/another.db"
    mlflow.MlflowClient(there).create_registered_model(labelled.model)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", there)
    registry = labelled.deployment.open_registry()
    assert registry.versions(labelled.model) == []
    assert set_label(labelled.deployment, STABLE, 1).version == 1


def test_a_training_for_another_mlflow_ends_before_it_begins(
    offline: Pipeline, prefect_api: str, tmp_path: Path
) -> None:
    """Exit code 1 and the sentence; nothing is trained, recorded or published, and no database appears."""
    offline.model = "iris"
    offline.sources(offline.repository.base_path("iris"), 1)
    Journal(offline.settings.models_repo, "iris").append("publish", version=1)
    paths = {"HOTSWAP_HOME": str(tmp_path / "home"), "HOTSWAP_MODELS_REPO": str(offline.settings.models_repo)}
    others = {"HOTSWAP_REST_PORT": "1", "HOTSWAP_GRPC_PORT": "2", "PREFECT_API_URL": prefect_api}
    done = hotswap({**without_settings(), **paths, **others}, "train", "iris")
    assert (done.returncode, done.stdout) == (1, "")
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"hotswap: MLflow at sqlite:///{tmp_path}/home/mlflow.db does not know the model 'iris'")
    assert "training epoch" not in done.stderr
    assert not (tmp_path / "home" / "mlflow.db").exists()
    assert offline.repository.versions("iris") == [1]


def _aliases(address: str, model: str) -> dict[str, int]:
    return {name: int(at) for name, at in mlflow.MlflowClient(address).get_registered_model(model).aliases.items()}
