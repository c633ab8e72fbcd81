"""The command line: exit codes, one document of JSON, one sentence for every mistake."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.cli import run
from serving.repository.model_config import ModelEntry, render
from serving.repository.store import Repository
from serving.repository.version_policy import All
from tests.conftest import wait_available

COMMAND = [sys.executable, "-m", "flows.cli"]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home and a models repository of the test's own, ports where nobody listens; the environment as before."""
    before = dict(os.environ)
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "PREFECT_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOTSWAP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HOTSWAP_MODELS_REPO", str(tmp_path / "models"))
    for name in ("HOTSWAP_REST_PORT", "HOTSWAP_GRPC_PORT"):
        with socket.create_server(("127.0.0.1", 0)) as free:
            monkeypatch.setenv(name, str(free.getsockname()[1]))
    yield tmp_path
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def running(tiny_model: Any, model_server: Any, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server with version 3 of the tiny model, on the ports of the settings."""
    tiny_model(home / "models" / "tiny", 3)
    server = model_server(model_name="tiny", model_base_path=str(home / "models" / "tiny"))
    monkeypatch.setenv("HOTSWAP_REST_PORT", str(server.rest_port))
    monkeypatch.setenv("HOTSWAP_GRPC_PORT", str(server.grpc_port))


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    """``hotswap --help`` names all commands and ends well."""
    assert run(["--help"]) == 0
    text = capsys.readouterr().out
    for command in (
        "up",
        "train",
        "promote",
        "status",
        "predict",
        "label",
        "rollback",
        "retire",
        "restore",
        "tidy",
        "serve",
    ):
        assert f"  {command} " in text
    for command in ("history", "explain", "reconcile", "doctor"):
        assert f"  {command} " in text


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["train", "--seed", "x"],
        ["label", "iris"],
        ["retire", "iris", "1.5"],
        ["predict", "iris"],
        ["predict", "iris", "1,2", "--nonsense"],
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    """What the command line cannot read is a usage error."""
    assert run(arguments) == 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train", "nonsense"], "iris"),
        (["promote", "iris"], "either --run RUN_ID, --saved-model DIRECTORY or --version NUMBER"),
        (["promote", "iris", "--run", "a", "--saved-model", "b"], "either"),
        (["promote", "iris", "--saved-model", "nowhere"], "nowhere"),
        (["promote", "iris", "--version", "9"], "Version 9 of 'iris' is not published"),
        (["promote", "iris", "--version", "9", "--label", "canary"], "`hotswap label iris canary 9`"),
        (["promote", "iris", "--run", "a", "--label", "v7"], "cannot be a label"),
        (["train", "iris", "--label", "latest"], "cannot be a label"),
        (["train", "iris", "--min-accuracy", "1.5"], "from 0 to 1"),
        (["train", "iris", "--min-accuracy", "nan"], "from 0 to 1"),
        (["train", "iris", "--epochs", "0"], "epochs"),
        (["train", "iris", "--seed", "-1"], "seed"),
        (["train", "iris", "--bake", "-1"], "bake"),
        (["train", "iris", "--bake", "inf"], "bake"),
        (["status", "nonsense"], "no model 'nonsense'"),
        (["rollback", "../iris"], "../iris"),
        (["retire", "a/b", "1"], "a/b"),
        (["restore", "", "1"], "name"),
        (["label", "iris", "v7", "1"], "cannot be a label"),
        (["rollback", "iris"], "No version of 'iris'"),
        (["history", "nonsense"], "no model 'nonsense'"),
        (["history", "iris", "--at", "yesterday"], "2026-11-22T10:00"),
        (["explain", "iris", "3"], "not on disk"),
        (["reconcile", "nonsense"], "no model 'nonsense'"),
        (["tidy", "iris"], "No version of 'iris'"),
        (["predict", "iris", "1,2,x"], "5.1,3.5,1.4,0.2"),
        (["predict", "iris", "1,2"], "hotswap up"),
        (["predict", "iris", "1,2", "--grpc"], "hotswap up"),
    ],
)
def test_a_mistake_is_reported_in_one_sentence(
    arguments: list[str], expected: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1, one line on standard error that says what to do, nothing on standard output, nothing changed."""
    assert run(arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert expected in captured.err
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("hotswap: ")
    assert not list((home / "models").glob("*/[0-9]*"))


def test_a_setting_that_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message names the variable and its value."""
    monkeypatch.setenv("HOTSWAP_REST_PORT", "eighty")
    assert run(["status"]) == 1
    assert "HOTSWAP_REST_PORT='eighty'" in capsys.readouterr().err


def test_an_unusable_models_directory_is_reported_before_anything_is_trained(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file in the place of the models repository stops a training at once."""
    (home / "occupied").write_text("not a directory")
    monkeypatch.setenv("HOTSWAP_MODELS_REPO", str(home / "occupied"))
    assert run(["train", "iris"]) == 1
    assert "occupied" in capsys.readouterr().err


def test_an_empty_repository_has_a_next_step(capsys: pytest.CaptureFixture[str]) -> None:
    """With no model yet, status says how to begin."""
    assert run(["status"]) == 0
    assert "hotswap train" in capsys.readouterr().out
    assert run(["status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["versions"] == []


def test_what_agrees_and_what_is_well_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    """With nothing there is nothing wrong, in words and in JSON."""
    for command, expected in (("reconcile", "Everything agrees."), ("doctor", "All is well.")):
        assert run([command]) == 0
        assert capsys.readouterr().out == f"{expected}\n"
        assert run([command, "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == []


def test_a_version_put_there_by_hand_is_reported_repaired_and_remembered(
    tiny_model: Any, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status and doctor report it, a dry run changes nothing, reconcile repairs it, and history has it."""
    tiny_model(home / "models" / "tiny", 3)
    assert run(["status"]) == 0
    assert "tiny: version 3 is in the directory, but was never published" in capsys.readouterr().out
    assert run(["doctor"]) == 1
    assert "next: `hotswap reconcile` repairs it" in capsys.readouterr().out
    assert run(["reconcile", "--dry-run", "tiny"]) == 0
    assert "tiny: would repair: version 3" in capsys.readouterr().out
    assert run(["reconcile"]) == 0
    assert "tiny: repaired: version 3" in capsys.readouterr().out
    assert run(["doctor"]) == 1
    assert "no model server runs" in capsys.readouterr().out
    assert run(["history", "tiny"]) == 0
    assert "reconcile" in capsys.readouterr().out
    assert run(["history", "tiny", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["added"] == [3]
    assert run(["history", "tiny", "--at", "2000-01-01"]) == 0
    assert "there was nothing of tiny yet" in capsys.readouterr().out
    assert run(["explain", "tiny", "3"]) == 1
    assert "version 3 was never published" in capsys.readouterr().out


def test_dry_runs_of_removals_change_nothing(tiny_model: Any, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rollback, retire and tidy say what would go."""
    for version in (3, 4):
        tiny_model(home / "models" / "tiny", version)
    for arguments in (["rollback", "tiny"], ["retire", "tiny", "4"]):
        assert run([*arguments, "--dry-run"]) == 0
        assert "Would retire: 4. Nothing was changed." in capsys.readouterr().out
    assert run(["tidy", "tiny", "--dry-run"]) == 0
    assert "Would retire: none." in capsys.readouterr().out
    assert Repository(home / "models").versions("tiny") == [3, 4]


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize("protocol", [[], ["--grpc"]])
@pytest.mark.parametrize("how", [[], ["--version", "3"]])
def test_predict_answers_over_both_protocols(
    protocol: list[str], how: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The JSON document has the model, the version that answered, and every output."""
    assert run(["predict", "tiny", "1,2,3,4", "-1,0,0,2", "--json", *protocol, *how]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "model": "tiny",
        "version": 3,
        "outputs": {"output": [[13.0, 103.0, 1003.0], [4.0, 13.0, 103.0]]},
    }


@pytest.mark.parametrize("protocol", [[], ["--grpc"]])
def test_predict_asks_for_the_stable_version(
    protocol: list[str],
    home: Path,
    tiny_model: Any,
    model_server: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Also a server that has no default label, as TensorFlow Serving has none; another version is named."""
    for version in (1, 2):
        tiny_model(home / "models" / "tiny", version)
    config = home / "models.config"
    config.write_text(render([ModelEntry("tiny", str(home / "models" / "tiny"), All(), {"stable": 1, "canary": 2})]))
    server = model_server(model_config_file=config, allow_version_labels_for_unavailable_models=True)
    wait_available(server, "tiny", 1, 2)
    monkeypatch.setenv("HOTSWAP_REST_PORT", str(server.rest_port))
    monkeypatch.setenv("HOTSWAP_GRPC_PORT", str(server.grpc_port))
    for how, version in [([], 1), (["--label", "canary"], 2), (["--version", "2"], 2)]:
        assert run(["predict", "tiny", "1,2,3,4", "--json", *protocol, *how]) == 0
        assert json.loads(capsys.readouterr().out)["version"] == version


@pytest.mark.usefixtures("running")
def test_predict_reads_rows_from_standard_input_and_never_imports_tensorflow() -> None:
    """A pipe of JSON rows is answered by a process that has no TensorFlow in it."""
    program = (
        "import sys; from flows.cli import run; code = run(['predict', 'tiny', '-']); "
        "sys.exit(code or ('tensorflow' in sys.modules and 99))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input="[[1, 2, 3, 4]]", capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "tiny version 3\n  output: 13 103 1003\n")


@pytest.mark.usefixtures("running")
def test_an_unknown_version_is_reported_as_the_server_tells_it(capsys: pytest.CaptureFixture[str]) -> None:
    """What the server refuses arrives as one sentence."""
    assert run(["predict", "tiny", "1,2,3,4", "--version", "9"]) == 1
    assert "Specific(tiny, 9)" in capsys.readouterr().err


def test_a_server_that_does_not_answer_stops_a_training_before_it_begins(home: Path) -> None:
    """Exit code 1 and one sentence; nothing is trained, recorded or published."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = str(deaf.getsockname()[1])
        settings = {"GRPC_PORT": port, "REST_PORT": port, "PREFECT_PORT": "1", "SERVER_TIMEOUT_SECONDS": "1"}
        done = subprocess.run(
            [*COMMAND, "train", "iris", "--epochs", "20"],
            env={**os.environ, **{f"HOTSWAP_{name}": value for name, value in settings.items()}},
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert f"The model server at 127.0.0.1:{port} did not answer" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert Repository(home / "models").models() == []
    assert not (home / "home" / "mlflow.db").exists()


def test_serve_starts_with_nothing_to_serve_and_the_last_flag_wins(home: Path) -> None:
    """One line of JSON has the addresses; SIGTERM ends it with exit code 0."""
    server = subprocess.Popen([*COMMAND, "serve", "--json", "--ephemeral_ports"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        addresses = json.loads(server.stdout.readline())
        with urllib.request.urlopen(f"{addresses['rest']}/readyz", timeout=10) as answer:
            assert answer.status == 200
        assert addresses["grpc"] == f"127.0.0.1:{addresses['grpc_port']}"
        assert str(addresses["rest_port"]) != os.environ["HOTSWAP_REST_PORT"]
    finally:
        server.terminate()
        server.communicate(timeout=60)
    assert server.returncode == 0
    assert "model_config_list" in (home / "models" / "models.config").read_text()


def test_a_directory_in_the_place_of_a_file_is_reported(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An error that the system gave is one sentence, with the file that has its traceback."""
    (home / "models" / "models.config").mkdir(parents=True)
    (home / "models" / "tiny" / "1").mkdir(parents=True)
    assert run(["rollback", "tiny"]) == 1
    message = capsys.readouterr().err
    assert "models.config cannot be used (Is a directory): a file belongs there: move the directory away" in message
    assert message.count("\n") == 1
    assert "Traceback" in (home / "home" / "logs" / "error.log").read_text()


@pytest.mark.parametrize("arguments", [["train"], ["serve"], ["up"], ["label", "tiny", "stable", "1"]])
def test_a_home_that_cannot_be_written_is_reported(
    arguments: list[str], home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file in the place of the home stops every command that needs one; the message names the setting."""
    (home / "models" / "tiny" / "1").mkdir(parents=True)
    (home / "occupied").write_text("not a directory")
    monkeypatch.setenv("HOTSWAP_HOME", str(home / "occupied"))
    assert run(arguments) == 1
    assert "HOTSWAP_HOME" in capsys.readouterr().err.splitlines()[-1]
