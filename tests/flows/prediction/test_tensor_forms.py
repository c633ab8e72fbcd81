"""Models with ragged, sparse and other tensors than dense rows: every command answers, or refuses in one sentence."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients import GrpcClient
from flows.cli import run
from flows.gate.gates import Facts, judge
from flows.recipes.finding import find_recipe
from flows.settings import Settings
from flows.tasks import CannotEvaluate
from flows.training.champion import evaluate_champion
from flows.training.dataset import load_dataset
from flows.training.inspection import inspect
from flows.training.predictor import load_predictor
from serving.repository.stamp import Stamp
from tests.conformance.cases import MODELS
from tests.serving.runtime.one_operation import save
from tests.waiting import until

pytestmark = pytest.mark.xdist_group("tensor-forms")  # one worker loads them for all of these

NAMES = ("ragged_default", "ragged_in", "ragged_other", "sparse", "two_heads", "no_default")


def version(name: str) -> Path:
    """The one version of a recorded model."""
    return MODELS / name / "1"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A server of all of them, and one version that needs an operation of a library that nobody has."""
    from serving.repository.model_config import ModelEntry, render
    from serving.server import Server
    from serving.settings import ServerSettings

    root = tmp_path_factory.mktemp("forms")
    models = root / "models"
    for name in NAMES:
        shutil.copytree(MODELS / name, models / name)
    config = models / "models.config"
    config.write_text(render([ModelEntry(name, str(models / name)) for name in NAMES]))
    with Server(ServerSettings(model_config_file=config, max_num_load_retries=0)) as server:
        save(root / "2", "TFText>NoSuchThing")
        (root / "2").rename(models / "sparse" / "2")
        with GrpcClient(f"127.0.0.1:{server.grpc_port}") as client:
            until(lambda: "END" in [each.state.name for each in client.status("sparse")])
        yield Settings(home=root / "home", models_repo=models, rest_port=server.rest_port, grpc_port=server.grpc_port)


@pytest.fixture
def command(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], in_mlflow_home: Path
) -> Any:
    """Run a command: exit code and all that it prints."""
    for field in ("home", "models_repo", "rest_port", "grpc_port"):
        monkeypatch.setenv(f"HOTSWAP_{field.upper()}", str(getattr(settings, field)))

    def printed(*arguments: str) -> tuple[int, str]:
        code = run(list(arguments))
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return printed


@pytest.mark.parametrize("protocol", [[], ["--grpc"]], ids=["rest", "grpc"])
@pytest.mark.parametrize(
    ("model", "signature", "expected"),
    [
        ("ragged_default", "", "Output 'words' of signature 'serving_default' of 'ragged_default' is sparse or ragged"),
        ("ragged_default", "mixed", "ask with `--signature length`"),
        ("ragged_in", "", "Input 'r' of signature 'serving_default'"),
        ("ragged_in", "both", "Input 'r' and Output 'twice' of signature 'both'"),
        ("sparse", "sparse_in", "ask with `--signature parts` or `--signature parts_in` or `--signature plain`"),
        ("two_heads", "", "Signature 'serving_default' of 'two_heads' takes serialized tf.Example records"),
        ("no_default", "", "has no signature 'serving_default'"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_what_can(
    model: str, signature: str, expected: str, protocol: list[str], command: Any
) -> None:
    """One sentence on one line names the tensor and the signatures that can be asked."""
    chosen = ["--signature", signature] if signature else []
    code, printed = command("predict", model, "1,2,3", "--version", "1", *chosen, *protocol)
    assert code == 1
    assert expected in printed
    assert len(printed.splitlines()) == 1


@pytest.mark.parametrize("protocol", [[], ["--grpc"]], ids=["rest", "grpc"])
def test_dense_signatures_beside_others_are_answered(protocol: list[str], command: Any) -> None:
    """A ragged or sparse tensor elsewhere in the model is of no consequence."""
    for model, signature, answer in (("ragged_default", "length", "n: 5"), ("sparse", "plain", "rows: 6")):
        code, printed = command("predict", model, "1,2,3", "--version", "1", "--signature", signature, *protocol)
        assert (code, printed) == (0, f"{model} version 1\n  {answer}\n")


def test_reports_know_every_form_and_the_missing_library(command: Any) -> None:
    """Status, doctor and explain end without a fault, and say which extra a version is waiting for."""
    for arguments in (["status"], ["doctor"], *(["explain", name, "1"] for name in NAMES)):
        code, printed = command(*arguments)
        assert code in (0, 1)
        assert "internal error" not in printed
        assert "Traceback" not in printed
        if len(arguments) == 1:
            assert all(name in printed for name in NAMES)
            assert "part of TensorFlow Text" in " ".join(printed.split())
            assert "extra `ops`" in " ".join(printed.split())


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("ragged_other", "two_heads")])
def test_a_candidate_of_another_form_is_reported_what_to_export(name: str) -> None:
    """Its own tensors are named, and what a candidate has to take and give."""
    with pytest.raises(CannotEvaluate) as caught:
        load_predictor(version(name))
    message = str(caught.value)
    signature = inspect(version(name)).signatures.get("serving_default")
    assert "\n" not in message
    assert "takes dense tensors with a row per example" in message
    for tensor in [*signature.inputs, *signature.outputs] if signature else ["has no signature"]:
        assert tensor in message


@pytest.mark.parametrize("name", NAMES)
def test_a_live_version_of_another_form_is_compared_as_far_as_it_goes(
    name: str, tiny_model: Any, tmp_path: Path
) -> None:
    """That it cannot be evaluated is noted, and its signatures are held against the candidate's."""
    recipe = find_recipe("iris")
    dataset = load_dataset(recipe)
    candidate = tiny_model(tmp_path, 1, "saved_model")
    champion = evaluate_champion(version(name), 1, Stamp(), load_predictor(candidate), dataset)
    assert champion.evaluation is None
    assert "it cannot be evaluated" in champion.notes[0]
    perfect = dataset.task.evaluate(dataset.test.targets, np.eye(3, dtype=np.float32)[dataset.test.targets])
    decision = judge(Facts(perfect, inspect(candidate), (), champion), recipe.thresholds)
    assert "breaks clients of version 1: signature" in decision.reason
