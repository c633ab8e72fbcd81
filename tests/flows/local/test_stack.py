"""``hotswap up``: everything together, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import psutil
import pytest

from flows.events import Kind
from flows.events.outbox import Channel, waiting
from flows.journal import Journal
from flows.promotion.labels import Labels
from flows.settings import Settings
from serving.repository.store import Repository
from tests.ports import PORTS, process_at, stack_ports
from tests.processes import PYTHON, Piped, behind_a_dead_proxy, hotswap, running
from tests.waiting import until

pytestmark = pytest.mark.xdist_group("stack")  # one worker starts what the tests share

ELSEWHERE = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:1", "PREFECT_API_URL": "http://127.0.0.1:1/api"}
"""so that `hotswap up` starts no MLflow and no Prefect"""
MODULES = {
    "model server": "serving",
    "mlflow": "flows.registry.mlflow_page",
    "prefect": "flows.orchestration.prefect_page",
    "operator": "flows.local.operator",
}
"""of each service"""


@pytest.fixture
def environment(tmp_path: Path, python: str) -> dict[str, str]:
    """A home of the test's own, and ports on which nobody listens; what is started is forked."""
    return environment_in(tmp_path, python)


def environment_in(directory: Path, python: str) -> dict[str, str]:
    paths = {"HOTSWAP_HOME": str(directory / "home"), "HOTSWAP_MODELS_REPO": str(directory / "models")}
    return {**os.environ, **paths, **stack_ports(), "PYTHONPATH": str(Path.cwd()), PYTHON: python}


@pytest.fixture
def started() -> Iterator[list[Piped]]:
    """Processes that are killed with all their children when the test fails before it has stopped them."""
    with killed_at_last() as processes:
        yield processes


@contextmanager
def killed_at_last() -> Iterator[list[Piped]]:
    processes: list[Piped] = []
    yield processes
    for process in processes:
        if process.returncode is None:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
        if not process.stdout.closed:
            process.communicate()


def start_up(environment: dict[str, str], directory: Path) -> Piped:
    return running(environment, "up", "--json", directory=directory)


@dataclass
class Stack:
    """``hotswap up --json``, once its line is there."""

    process: Piped
    addresses: dict[str, Any]
    environment: dict[str, str]
    directory: Path

    def leader(self, name: str) -> psutil.Process:
        """The process of one service, once it is there."""
        word = MODULES[name]

        def found() -> list[psutil.Process]:
            with suppress(psutil.NoSuchProcess):
                return [child for child in psutil.Process(self.process.pid).children() if word in child.cmdline()]
            return []

        return until(found)[0]

    def said(self) -> str:
        """What it has put into its log."""
        path = Path(self.addresses["logs"]) / "up.log"
        return path.read_text() if path.exists() else ""

    def second(self, **environment: str) -> CompletedProcess[str]:
        """``hotswap up`` once more."""
        return hotswap({**self.environment, **environment}, "up", directory=self.directory)


def first_line(process: Piped) -> dict[str, Any]:
    """The addresses that ``up --json`` prints."""
    line = process.stdout.readline()
    assert line, process.communicate()[1]
    addresses: dict[str, Any] = json.loads(line)
    return addresses


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.mark.soak
def test_up_keeps_everything_running_until_sigterm(
    environment: dict[str, str],
    started: list[Piped],
    furnish: Callable[[Path], None],
    tiny_model: Any,
    tmp_path: Path,
) -> None:
    """
    Every address answers once the JSON line is there, a killed page comes back alone, and SIGTERM ends all.

    All this is so where the environment has a proxy that leads nowhere, and the commands ask what runs.
    """
    furnish(tmp_path / "home")
    tiny_model(tmp_path / "models" / "tiny", 3)
    Labels(Repository(tmp_path / "models"), "tiny").write({})
    environment = behind_a_dead_proxy(environment)
    process = start_up(environment, tmp_path)
    started.append(process)
    stack = Stack(process, first_line(process), environment, tmp_path)
    check_addresses(stack)
    check_commands(environment, stack.addresses)

    others = [stack.leader(name) for name in ("model server", "prefect")]
    stack.leader("mlflow").kill()
    until(lambda: "mlflow was ended by SIGKILL: restarting it" in stack.said())
    until(lambda: "mlflow runs again" in stack.said())
    assert answers(f"{stack.addresses['mlflow']}/health")
    assert [stack.leader(name) for name in ("model server", "prefect")] == others

    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    errors = process.communicate()[1]
    assert process.returncode == 0
    assert psutil.wait_procs(children, timeout=20)[1] == []
    assert "mlflow was ended by SIGKILL" in errors
    logs = {path.name for path in Path(stack.addresses["logs"]).iterdir()}
    assert logs >= {"model-server.log", "mlflow.log", "prefect.log", "up.log"}


def check_addresses(stack: Stack) -> None:
    """All of them answer, on the ports of the settings, and what they serve is set up as `up` does."""
    addresses = stack.addresses
    mlflow, api = f"{addresses['mlflow']}/health", f"{addresses['prefect']}/api/health"
    assert all(map(answers, (f"{addresses['rest']}/readyz", mlflow, api)))
    with urllib.request.urlopen(f"{addresses['rest']}/hotswap/models", timeout=10) as answer:
        assert json.load(answer)["default_version_label"] == "stable"
    assert addresses["ports"] == {name: int(stack.environment[name]) for name in PORTS}
    with urllib.request.urlopen(f"{addresses['prefect']}/ui-settings", timeout=10) as answer:
        assert json.load(answer)["api_url"] == "/api"


def check_commands(environment: dict[str, str], addresses: dict[str, Any]) -> None:
    """Status and predict reach the model server, over both protocols, and MLflow."""

    def said(*arguments: str) -> Any:
        done = hotswap({**environment, "MLFLOW_TRACKING_URI": addresses["mlflow"]}, *arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    for protocol in ([], ["--grpc"]):
        assert said("predict", "tiny", "1,2,3,4", *protocol)["outputs"] == {"output": [[13.0, 103.0, 1003.0]]}
    (row,) = said("status")["versions"]
    assert (row["version"], row["state"]) == (3, "AVAILABLE")
    assert not any("MLflow" in what for what in row["drift"])


BROKEN = {
    "mlflow": {"MLFLOW_TRACKING_URI": "sqlite:///{file}", "PREFECT_API_URL": ELSEWHERE["PREFECT_API_URL"]},
    "prefect": {"MLFLOW_TRACKING_URI": ELSEWHERE["MLFLOW_TRACKING_URI"], "PREFECT_HOME": "{file}"},
}
"""a file that is neither MLflow's database nor Prefect's home; the other one is elsewhere"""


@pytest.mark.parametrize("page", ["mlflow", pytest.param("prefect", marks=pytest.mark.soak)])
def test_pages_that_cannot_start_do_not_stop_the_model_server(
    page: str, environment: dict[str, str], started: list[Piped], tmp_path: Path
) -> None:
    """What is wrong with the page is reported, and all else keeps running."""
    file = tmp_path / "file"
    file.write_text("something else")
    broken = {name: value.format(file=file) for name, value in BROKEN[page].items()}
    process = start_up({**environment, **broken, "HOTSWAP_WORKER": "false"}, tmp_path)
    started.append(process)
    stack = Stack(process, first_line(process), environment, tmp_path)
    assert answers(f"{stack.addresses['rest']}/readyz")
    assert f"{page} ended with exit code" in stack.said()
    server = stack.leader("model server")
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    process.communicate()
    assert process.returncode == 0
    assert time.monotonic() - began < 10
    assert not server.is_running()


@pytest.fixture
def model_server_alone(environment: dict[str, str], started: list[Piped], tmp_path: Path) -> Callable[[], Stack]:
    """Starts ``hotswap up`` where MLflow and Prefect are elsewhere."""

    def start() -> Stack:
        return start_alone(environment, tmp_path, started)

    return start


def start_alone(environment: dict[str, str], directory: Path, started: list[Piped]) -> Stack:
    environment = {**environment, **ELSEWHERE}
    process = start_up(environment, directory)
    started.append(process)
    addresses = first_line(process)
    assert addresses["mlflow"] == "http://127.0.0.1:1"
    return Stack(process, addresses, environment, directory)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, python: str) -> Iterator[Stack]:
    """A ``hotswap up`` that reconciles often, for the tests that leave it running."""
    directory = tmp_path_factory.mktemp("up")
    with killed_at_last() as started:
        yield start_alone({**environment_in(directory, python), "HOTSWAP_RECONCILE_SECONDS": "0.2"}, directory, started)


def test_a_directory_put_there_by_hand_is_served_and_journaled(shared: Stack, tiny_model: Any) -> None:
    """While everything is up a reconcile turn makes the model known to the server, without any command."""
    tiny_model(shared.directory / "models" / "tiny", 3)
    until(lambda: answers(f"{shared.addresses['rest']}/v1/models/tiny"))
    journal = Journal(shared.directory / "models", "tiny")
    until(journal.read)
    assert journal.read()[0].facts["added"] == [3]


def test_a_model_server_that_was_killed_serves_again(shared: Stack, tiny_model: Any, tmp_path: Path) -> None:
    """Also when a model has lost all its versions meanwhile, and it is told; the operator comes back itself."""
    models, rest = shared.directory / "models", shared.addresses["rest"]
    for name in ("kept", "emptied"):
        tiny_model(models / name, 1)
    until(lambda: all(answers(f"{rest}/v1/models/{name}") for name in ("kept", "emptied")))
    operator = shared.leader("operator")
    (models / "emptied" / "1").rename(tmp_path / "retired")
    shared.leader("model server").kill()
    until(lambda: "model server was ended by SIGKILL: restarting it" in shared.said())
    until(lambda: answers(f"{rest}/v1/models/kept"))
    assert answers(f"{rest}/readyz")
    told = [each.event for each in waiting(Settings(home=shared.directory / "home"), Channel.NOTIFY)]
    assert (Kind.DOWN, "model server") in [(event.kind, event.model) for event in told]
    server = shared.leader("model server")
    operator.kill()
    until(lambda: "operator runs again" in shared.said())
    assert shared.leader("model server") == server


def test_a_damaged_model_does_not_keep_the_others_from_being_served(shared: Stack, tiny_model: Any) -> None:
    """Its only version is reported as broken, in the server's log too; TensorFlow Serving would not start at all."""
    models, rest = shared.directory / "models", shared.addresses["rest"]
    for name in ("sound", "damaged"):
        tiny_model(models / name, 1)
    until(lambda: all(answers(f"{rest}/v1/models/{name}") for name in ("sound", "damaged")))
    (models / "damaged" / "1" / "variables" / "variables.index").write_bytes(b"no index")
    server = shared.leader("model server")
    server.kill()
    until(lambda: shared.leader("model server") != server)
    until(lambda: answers(f"{rest}/v1/models/sound/versions/1"))
    with urllib.request.urlopen(f"{rest}/v1/models/damaged", timeout=10) as answer:
        assert json.load(answer)["model_version_status"][0]["state"] == "END"
    assert not answers(f"{rest}/readyz")
    assert "serving without some models" in (Path(shared.addresses["logs"]) / "model-server.log").read_text()
    tiny_model(models / "damaged", 2)
    until(lambda: answers(f"{rest}/readyz"))


@pytest.mark.parametrize(
    ("host", "asked"), [pytest.param("0.0.0.0", "127.0.0.1", marks=pytest.mark.soak), ("::1", "[::1]")]
)
def test_other_addresses_are_shown_as_they_can_be_asked(
    host: str, asked: str, model_server_alone: Callable[[], Stack], environment: dict[str, str]
) -> None:
    """An address that stands for all of a machine's cannot be asked, and one with colons has brackets."""
    environment |= {"HOTSWAP_HOST": host, "HOTSWAP_ALLOW_ANONYMOUS": "true"}
    stack = model_server_alone()
    assert stack.addresses["rest"] == f"http://{asked}:{environment['HOTSWAP_REST_PORT']}"
    assert stack.addresses["grpc"] == f"{asked}:{environment['HOTSWAP_GRPC_PORT']}"
    assert answers(f"{stack.addresses['rest']}/readyz")


def test_a_second_up_recognises_the_first(shared: Stack, tmp_path: Path) -> None:
    """It names home, process and addresses, exits with code 6, changes nothing; elsewhere it says whose port it is."""
    server = shared.leader("model server")
    second = shared.second()
    assert (second.returncode, second.stdout) == (6, "")
    for fact in (str(shared.directory / "home"), f"process {shared.process.pid}", shared.addresses["rest"]):
        assert fact in second.stderr
    elsewhere = shared.second(HOTSWAP_HOME=str(tmp_path / "other"), HOTSWAP_MODELS_REPO=str(tmp_path / "other_models"))
    assert elsewhere.returncode == 1
    pid = process_at(shared.addresses["ports"]["HOTSWAP_REST_PORT"])
    assert f"it is the hotswap server of {shared.directory / 'models'}, process {pid}" in elsewhere.stderr
    assert not (tmp_path / "other_models").exists()
    assert shared.leader("model server") == server


def test_a_model_server_that_cannot_start_is_an_error(environment: dict[str, str], tmp_path: Path) -> None:
    """The message has its last lines, and nothing is left running."""
    refused = {**environment, **ELSEWHERE, "HOTSWAP_TOKEN_FILE": str(tmp_path / "missing")}
    done = hotswap(refused, "up", directory=tmp_path)
    assert done.returncode == 1
    assert "The model server ended with exit code 255, so everything was stopped" in done.stderr
    assert "model-server.log" in done.stderr
    assert "restarting it" not in done.stderr


@pytest.mark.parametrize("stopped", [pytest.param(False, marks=pytest.mark.soak), True])
def test_the_processes_end_even_when_up_is_killed(
    stopped: bool, model_server_alone: Callable[[], Stack], environment: dict[str, str], tmp_path: Path
) -> None:
    """
    SIGKILL gives it no time to stop anything, and still nothing is left, not even a process that was stopped.

    The next one waits for the ports, and is not fooled by another process that has the number of the first one.
    """
    del environment[PYTHON]
    stack = model_server_alone()
    children = psutil.Process(stack.process.pid).children(recursive=True)
    if stopped:
        stack.leader("model server").send_signal(signal.SIGSTOP)
    stack.process.kill()
    description = tmp_path / "home" / "up.json"
    description.write_text(json.dumps({**json.loads(description.read_text()), "pid": os.getpid()}))
    again = model_server_alone()
    assert answers(f"{again.addresses['rest']}/readyz")
    assert psutil.wait_procs(children, timeout=20)[1] == []
    again.process.send_signal(signal.SIGTERM)
    again.process.communicate()
    assert again.process.returncode == 0
    assert not description.exists()


@pytest.mark.parametrize(
    "setting", [pytest.param(name, marks=() if name == PORTS[-1] else pytest.mark.soak) for name in PORTS]
)
def test_a_port_in_use_names_the_setting(setting: str, environment: dict[str, str], tmp_path: Path) -> None:
    """Nothing is started when a port is taken; the message says which setting changes it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        occupied = {**environment, setting: str(taken.getsockname()[1])}
        done = hotswap(occupied, "up", directory=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert f"set {setting} to another port" in done.stderr


def test_two_settings_with_one_port_are_reported(environment: dict[str, str], tmp_path: Path) -> None:
    """A port given twice is found before anything is started."""
    twice = {**environment, "HOTSWAP_GRPC_PORT": environment["HOTSWAP_REST_PORT"]}
    done = hotswap(twice, "up", directory=tmp_path)
    assert done.returncode == 1
    assert "set HOTSWAP_GRPC_PORT to another port" in done.stderr
