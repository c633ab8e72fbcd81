"""Errors of others: of the user's recipe, of MLflow, of Prefect, of the system. Each has a sentence and a next step."""

from __future__ import annotations

import dataclasses
import errno
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from flows.commands import failures
from flows.machine.workspaces import workspace
from flows.recipes import Recipe
from flows.recipes.finding import UnknownRecipe, find_recipe
from flows.registry.mlflow_errors import RegistryError
from flows.registry.mlflow_registry import Registry
from flows.settings import InvalidSettings, Settings, apply_environment, load_settings, sqlite_address
from flows.training import fit
from flows.training.dataset import load_dataset
from flows.user_code import OutOfMemory, RecipeFailed
from serving.protocol.errors import HotswapError, IncompleteSavedModel
from tests.pipelines import Pipeline

ODD = "a b%20c#d?é'\"$;,&[{(日"


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where tracebacks are kept."""
    monkeypatch.setenv("HOTSWAP_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("code", "expected", "line"),
    [
        ("def load(:\n    pass\n", "SyntaxError", 1),
        ("\nimport there_is_no_such_package\n", "ModuleNotFoundError: No module named 'there_is_no_such_package'", 2),
        ("def half(n):\n    return 1 / n\n\nhalf(0)\n", "ZeroDivisionError: division by zero", 2),
    ],
)
def test_a_recipe_that_cannot_be_imported_is_reported_with_its_line(
    code: str, expected: str, line: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is the user's own, and so is the next step."""
    name = f"recipe_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RecipeFailed) as caught:
        find_recipe(f"{name}:RECIPE")
    assert expected in str(caught.value)
    assert f"{tmp_path}/{name}.py:{line}" in str(caught.value)


def test_a_recipe_that_ends_the_program_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``sys.exit`` in a module does not end the command without a word."""
    (tmp_path / "recipe_that_exits.py").write_text("raise SystemExit(0)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RecipeFailed, match=r"sys\.exit"):
        find_recipe("recipe_that_exits:RECIPE")


@pytest.mark.parametrize("name", ["there.is.no.such.module", "..relative", "with space.x", ":RECIPE"])
def test_a_recipe_that_is_not_there_is_unknown(name: str) -> None:
    """What cannot be found is another thing than what fails."""
    with pytest.raises(UnknownRecipe):
        find_recipe(name)


def broken(*_: Any) -> Any:
    names: dict[str, int] = {}
    return names["no such key"]


def endless(*_: Any) -> Any:
    raise MemoryError


def nothing(*_: Any) -> None:
    return None


def of_another_shape(_: Any) -> Any:
    import keras

    return keras.Sequential([keras.layers.Input((7,)), keras.layers.Dense(3, activation="softmax")])


def line_of(function: Callable[..., Any]) -> int:
    return function.__code__.co_firstlineno + 2


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (broken, f"cannot be built: KeyError: 'no such key', at {__file__}:{line_of(broken)} in broken"),
        (nothing, "returns NoneType, and has to return a keras.Model"),
        (of_another_shape, "cannot be trained: ValueError: "),
    ],
)
def test_a_bug_in_a_recipes_build_is_reported_as_one(
    build: Any, expected: str, own_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the user's own line where one took part; the traceback is kept, and it is no internal error."""
    recipe = dataclasses.replace(find_recipe("iris"), build=build)
    with pytest.raises(RecipeFailed) as caught:
        fit.fit(recipe, load_dataset(recipe), 1, 1, lambda epoch, metrics: None)
    assert failures.report(caught.value) == 1
    shown = capsys.readouterr().err
    assert expected in shown
    assert "internal error" not in shown
    assert "Traceback" in (own_home / "logs" / "error.log").read_text()


def test_a_bug_in_a_recipes_load_is_reported_as_one() -> None:
    """With its line."""
    recipe: Recipe = dataclasses.replace(find_recipe("iris"), load=broken)
    with pytest.raises(RecipeFailed, match=rf"cannot be loaded: KeyError.*:{line_of(broken)} in broken"):
        load_dataset(recipe)


def test_a_training_without_enough_memory_is_reported() -> None:
    """The next step is to ask for less."""
    recipe = dataclasses.replace(find_recipe("iris"), build=endless)
    with pytest.raises(OutOfMemory, match="batch_size"):
        fit.fit(recipe, load_dataset(recipe), 1, 1, lambda epoch, metrics: None)


def no_room() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/iris")


def no_directory() -> None:
    raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")


def a_directory() -> None:
    Path("/").open("wb").close()


def nobody_at_prefect() -> None:
    httpx.get("http://127.0.0.1:1", trust_env=False)


def damaged_database() -> None:
    raise sqlite3.DatabaseError("database disk image is malformed")


def without_memory() -> None:
    raise MemoryError


@pytest.mark.parametrize(
    ("harm", "expected"),
    [
        (no_room, "free some space"),
        (no_directory, "set TMPDIR"),
        (a_directory, "cannot be used (Is a directory)"),
        (nobody_at_prefect, "does not answer"),
        (damaged_database, "A database cannot be used"),
        (without_memory, "Memory ran out"),
    ],
)
def test_what_arrives_at_the_edge_has_its_sentence(
    harm: Callable[[], None], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line that says the next step, and exit code 1."""
    with pytest.raises((OSError, MemoryError, sqlite3.Error, httpx.HTTPError)) as caught:
        harm()
    assert failures.report(caught.value) == 1
    shown = capsys.readouterr().err
    assert expected in shown
    assert "internal error" not in shown
    assert shown.count("\n") == 1


def test_a_bug_of_ours_is_called_an_internal_error(own_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is still one sentence, with the file that has the traceback."""
    with pytest.raises(KeyError) as caught:
        broken()
    assert failures.report(caught.value) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("hotswap: internal error, KeyError: 'no such key'; the traceback is in ")
    assert shown.count("\n") == 1
    assert "in broken" in (own_home / "logs" / "error.log").read_text()


def test_a_value_that_mlflow_cannot_use_names_the_variable(offline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the address, which is right."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "soon")
    with pytest.raises(RegistryError, match="MLFLOW_HTTP_REQUEST_TIMEOUT='soon' cannot be used"):
        Registry(offline.directory / "artifacts").check()


def test_a_deleted_experiment_is_reported_with_the_command_that_restores_it(offline: Pipeline) -> None:
    """Its name is taken as long as it lies in MLflow's bin."""
    client = offline.registry._client
    experiment = client.get_experiment_by_name(offline.model)
    client.delete_experiment(experiment.experiment_id)
    step = f"mlflow experiments restore --experiment-id {experiment.experiment_id}"
    with pytest.raises(RegistryError, match=step):
        offline.registry.start_run(offline.model, "again", {}, {})


def test_artifacts_that_cannot_be_written_are_reported_with_their_place(offline: Pipeline) -> None:
    """A file stands where the experiment's directory should be."""
    offline.begin_anew()
    offline.kept = {}
    place = Path(offline.settings.home) / "artifacts" / offline.model
    place.parent.mkdir(exist_ok=True)
    place.write_text("in the way")
    with pytest.raises(RegistryError, match=rf"cannot be used \({place}.*Not a directory"):
        offline.register(1)


@pytest.mark.parametrize("setting", ["HOTSWAP_MODELS_REPO", "HOTSWAP_HOME"])
@pytest.mark.parametrize("address", ["s3://bucket/models", "gs://bucket/models", "file:///srv/models"])
def test_a_directory_cannot_be_an_address(setting: str, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No directory called ``s3:`` is made."""
    monkeypatch.setenv(setting, address)
    with pytest.raises(InvalidSettings, match=f"{setting}='{address}' cannot be used: it must be a directory"):
        load_settings()


def test_a_home_may_have_any_characters(offline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs, artifacts, the kept model and the registered files arrive where they belong."""
    home = tmp_path / ODD
    home.mkdir()
    for name in ("MLFLOW_TRACKING_URI", "PREFECT_SERVER_DATABASE_CONNECTION_URL"):
        monkeypatch.setenv(name, "")  # one that is not there now is taken away again only if it was set here
        monkeypatch.delenv(name)
    apply_environment(Settings(home=home, models_repo=tmp_path / "models"))
    assert os.environ["MLFLOW_TRACKING_URI"] == sqlite_address(home / "mlflow.db")
    registry = Registry(home / "artifacts")
    recorded = registry.start_run("tiny", "run", {}, {})
    source = offline.sources(tmp_path / "source", 1, "saved_model")
    uri = recorded.log_model(source, offline.golden(1))
    assert registry.register(recorded.id, "tiny", uri, 0, tmp_path / "copy").version == 1
    assert (home / "mlflow.db").stat().st_size
    assert list((home / "artifacts").rglob("saved_model.pb"))


def test_no_error_names_a_directory_that_is_gone() -> None:
    """What was in it is named alone."""
    with pytest.raises(HotswapError) as caught, workspace() as directory:
        raise IncompleteSavedModel(f"{directory}/saved_model is not a complete SavedModel")
    assert str(caught.value) == "saved_model is not a complete SavedModel"
