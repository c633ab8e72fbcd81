"""The worker of `hotswap up`: commands and scheduled runs, each in a new process that has everything imported."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelling

from flows.orchestration.prefect_server import TemporaryPrefect
from flows.settings import Settings
from tests.conftest import at_home
from tests.processes import hotswap, running, without_settings
from tests.waiting import until

pytestmark = [pytest.mark.xdist_group("worker"), pytest.mark.slow]

EPOCHS = 2
OWN = """
    from dataclasses import replace
    from flows.recipes import iris
    RECIPE = replace(iris.RECIPE, name="own")
    """
FAILING = """
    import os
    from dataclasses import replace
    from flows.recipes import iris

    def load():
        raise ValueError("loaded by " + os.environ.get("OWN_NAME", "nobody"))

    RECIPE = replace(iris.RECIPE, name="failing", load=load)
    """
WAITING = """
    import os, signal
    from dataclasses import replace
    from pathlib import Path
    from flows.recipes import iris

    def load():
        Path({path!r}).write_text(str(os.getpid()))
        while True:
            signal.pause()

    RECIPE = replace(iris.RECIPE, name={name!r}, load=load)
    """


@dataclass
class Warm:
    """A home with a Prefect server and a worker; no model server runs."""

    directory: Path
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the worker in a session of its own, as `hotswap up` does."""
        log = self.directory / "worker.log"
        with log.open("wb") as written:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "flows.worker"],
                env={**self.environment, "PYTHONPATH": str(Path.cwd())},
                cwd=self.directory,
                stdout=written,
                stderr=written,
                start_new_session=True,
            )
        until(lambda: "the worker serves" in log.read_text())

    def kill(self) -> None:
        """End the worker and all its processes, as what keeps it running does when it ends."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """End the worker in good order."""
        assert self.process is not None
        self.process.terminate()
        assert self.process.wait(60) == 0

    def write(self, name: str, text: str) -> Path:
        """A recipe of the user's own, in a directory below the project."""
        path = self.directory / "below" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def hotswap(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        below = self.write("own.py", OWN).parent
        return hotswap({**self.environment, **environment}, *arguments, directory=below)

    def schedule(self, deployment: str, **parameters: Any) -> UUID:
        """What Prefect's page does with the button Run."""
        with self.prefect() as client:
            known = client.read_deployment_by_name(deployment)
            return client.create_flow_run_from_deployment(known.id, parameters=parameters).id

    def run(self, flow_run: UUID) -> FlowRun:
        with self.prefect() as client:
            return client.read_flow_run(flow_run)

    def wait(self, flow_run: UUID, state: str) -> FlowRun:
        """The run, once it has this state."""
        until(lambda: self.run(flow_run).state_name == state)
        return self.run(flow_run)

    def begun(self, name: str) -> int:
        """The process that has begun with the recipe of this name, which waits for its end."""
        begun = self.directory / f"{name}.pid"
        until(lambda: begun.exists() and begun.read_text())
        pid = int(begun.read_text())
        begun.unlink()
        return pid

    @contextmanager
    def prefect(self) -> Iterator[SyncPrefectClient]:
        settings = {PREFECT_API_URL: self.environment["PREFECT_API_URL"]}
        with temporary_settings(settings), get_client(sync_client=True) as client:
            yield client

    def runs(self, deployment: str) -> list[FlowRun]:
        """The flow runs of a deployment, newest first."""
        with self.prefect() as client:
            wanted = client.read_deployment_by_name(deployment).id
            return [
                each for each in client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC) if each.deployment_id == wanted
            ]

    def lines(self, run: FlowRun) -> list[str]:
        """What Prefect has as the log of a flow run."""
        with self.prefect() as client:
            logs = client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id])), limit=200)
        return [each.message for each in logs if not each.name.startswith("prefect")]


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory, furnish: Callable[[Path], None]) -> Iterator[Warm]:
    directory = tmp_path_factory.mktemp("worker")
    home = directory / ".hotswap"
    furnish(home)
    paths = {"HOTSWAP_HOME": str(home), "HOTSWAP_MODELS_REPO": str(directory / "models_repo")}
    ports = {"HOTSWAP_REST_PORT": "1", "HOTSWAP_GRPC_PORT": "2", "HOTSWAP_PREFECT_PORT": "3"}
    with at_home(home):
        server = TemporaryPrefect(Settings(home=home))
        server.wait()
    found = Warm(directory, without_settings() | paths | ports | {"PREFECT_API_URL": server.api_url})
    found.start()
    yield found
    found.kill()
    server.stop()


def test_a_training_of_the_command_line_is_a_run_of_the_deployment(warm: Warm) -> None:
    """It prints what it would print by itself, and Prefect has parameters and every line of it."""
    done = warm.hotswap("train", "iris", "--json", "--epochs", str(EPOCHS))
    assert done.returncode in (0, 3), done.stderr
    assert json.loads(done.stdout)["model"] == "iris"
    said = [line.partition(" ")[2].rstrip("…") for line in done.stderr.splitlines() if line[2:3] == ":"]
    assert {"loading TensorFlow", "data loaded recipe=iris train=120 test=30"} <= set(said)
    (run,) = warm.runs("train-and-promote/train")
    assert (run.parameters["recipe"], run.parameters["epochs"]) == ("iris", EPOCHS)
    assert run.state is not None
    assert run.state.is_completed()
    kept = warm.lines(run)
    assert [line for line in said if not any(_short(each).startswith(line) for each in kept)] == []


def test_a_promotion_of_the_command_line_is_a_run_of_the_deployment(warm: Warm) -> None:
    """Rejected, passed or wrong: the exit codes are those of the command, and Prefect has its parameters and lines."""
    trained = json.loads(warm.hotswap("train", "own.py", "--json", "--epochs", "1").stdout)
    run_id = trained["run_id"]
    rejected = warm.hotswap("promote", "own.py", "--run", run_id, "--json")
    assert (rejected.returncode, json.loads(rejected.stdout)["decision"]) == (3, "rejected"), rejected.stderr
    (run,) = warm.runs("promote/promote")
    assert (run.parameters["run"], run.state_name) == (run_id, "Rejected")
    said = [line.partition(" ")[2].rstrip("…") for line in rejected.stderr.splitlines() if line[2:3] == ":"]
    kept = [_short(each) for each in warm.lines(run)]
    assert said
    assert [line for line in said if not any(each.startswith(line) for each in kept)] == []
    passed = warm.hotswap("promote", "own", "--run", run_id, "--unevaluated", "a test", "--json")
    assert (passed.returncode, json.loads(passed.stdout)["version"]) == (0, 1), passed.stderr
    assert warm.runs("promote/promote")[0].state_name == "Completed"
    assert warm.hotswap("promote", "own", "--run", "nobody", "--unevaluated", "a test").returncode == 1
    assert "done here" not in rejected.stderr + passed.stderr


def _short(line: str) -> str:
    """A line as the command line shows it."""
    return re.sub(r"\b([0-9a-f]{8})[0-9a-f]{24}\b", r"\1", line)


def test_the_callers_directory_environment_and_code_count(warm: Warm) -> None:
    """A recipe is found where the command is given, sees its variables, and is read anew each time."""
    warm.write("failing.py", FAILING)
    first = warm.hotswap("train", "failing.py", OWN_NAME="the caller")
    assert first.returncode == 1
    assert "loaded by the caller" in " ".join(first.stderr.split())
    warm.write("failing.py", FAILING.replace("nobody", "what was changed"))
    second = warm.hotswap("train", "failing.py")
    assert second.returncode == 1
    assert "loaded by what was changed" in " ".join(second.stderr.split())
    assert "done here" not in first.stderr + second.stderr


def test_mistakes_are_told_as_without_a_worker(warm: Warm) -> None:
    """In one sentence and with the exit code of each, and Prefect hears of none of them."""
    before = len(warm.runs("train-and-promote/train"))
    unknown, wrong = warm.hotswap("train", "nobody"), warm.hotswap("train", "iris", "--epochs", "many")
    assert (unknown.returncode, wrong.returncode) == (1, 2)
    assert unknown.stderr.startswith("hotswap: There is no recipe 'nobody'")
    assert "see `hotswap train --help`" in " ".join(wrong.stderr.split())
    assert len(warm.runs("train-and-promote/train")) == before


def test_what_is_read_at_import_or_names_another_prefect_is_done_by_the_command_itself(warm: Warm) -> None:
    """It says so, and why."""
    for name, value in (("KERAS_BACKEND", "jax"), ("PREFECT_API_URL", "http://127.0.0.1:1/api")):
        done = warm.hotswap("train", "nobody", **{name: value})
        assert done.returncode == 1
        assert f"hotswap: done here, not by the worker of `hotswap up`: {name}" in done.stderr


def test_ctrl_c_cancels_the_run(warm: Warm) -> None:
    """The command says what it says without a worker, and Prefect has the run as cancelled."""
    below = warm.write("waiting.py", WAITING.format(path=str(warm.directory / "cancel.pid"), name="cancel")).parent
    command = running(warm.environment, "train", "waiting.py", directory=below)
    pid = warm.begun("cancel")
    command.send_signal(signal.SIGINT)
    _, errors = command.communicate()
    assert command.returncode == 130
    assert "interrupted; `hotswap status` shows what is live" in errors
    assert warm.runs("train-and-promote/train")[0].state_name == "Cancelled"
    until(lambda: not psutil.pid_exists(pid))


def test_a_command_that_goes_takes_its_run_along(warm: Warm) -> None:
    """As a process of its own would end with it."""
    below = warm.write("waiting.py", WAITING.format(path=str(warm.directory / "gone.pid"), name="gone")).parent
    command = running(warm.environment, "train", "waiting.py", directory=below)
    pid = warm.begun("gone")
    command.kill()
    command.communicate()
    until(lambda: not psutil.pid_exists(pid))
    warm.wait(warm.runs("train-and-promote/train")[0].id, "Cancelled")


def test_a_worker_that_is_stopped_cancels_its_runs(warm: Warm) -> None:
    """The command says that it was interrupted, and Prefect has the runs as cancelled."""
    pids = {name: str(warm.directory / f"{name}.pid") for name in ("typed", "scheduled")}
    scheduled = warm.write("scheduled.py", WAITING.format(path=pids["scheduled"], name="scheduled"))
    below = warm.write("typed.py", WAITING.format(path=pids["typed"], name="typed")).parent
    command = running(warm.environment, "train", "typed.py", directory=below)
    run = warm.schedule("train-and-promote/train", recipe=str(scheduled))
    begun = [warm.begun(name) for name in pids]
    warm.stop()
    _, errors = command.communicate()
    assert command.returncode == 130
    assert "interrupted; `hotswap status` shows what is live" in errors
    assert not any(map(psutil.pid_exists, begun))
    assert [each.state_name for each in warm.runs("train-and-promote/train")[:2]] == ["Cancelled"] * 2
    assert warm.run(run).state_name == "Cancelled"
    warm.start()


def test_a_killed_process_is_told_and_the_next_command_runs(warm: Warm) -> None:
    """The command ends with 1 and what to do, and Prefect has the run as crashed."""
    below = warm.write("waiting.py", WAITING.format(path=str(warm.directory / "kill.pid"), name="kill")).parent
    command = running(warm.environment, "train", "waiting.py", directory=below)
    os.kill(warm.begun("kill"), signal.SIGKILL)
    _, errors = command.communicate()
    assert command.returncode == 1
    assert "hotswap: The process that did this was killed" in errors
    run = warm.runs("train-and-promote/train")[0]
    warm.wait(run.id, "Crashed")
    warm.write("failing.py", FAILING)
    assert "loaded by the next" in " ".join(warm.hotswap("train", "failing.py", OWN_NAME="the next").stderr.split())


def test_what_prefect_schedules_is_run_and_cancelled(warm: Warm) -> None:
    """Each line of it stands in Prefect; a cancellation on the page ends its process."""
    own = warm.write("own.py", OWN)
    trained = warm.wait(warm.schedule("train-and-promote/train", recipe=str(own), epochs=1), "Rejected")
    assert "data loaded recipe=own train=120 test=30" in warm.lines(trained)
    waiting = warm.write("waiting.py", WAITING.format(path=str(warm.directory / "page.pid"), name="page"))
    run = warm.schedule("train-and-promote/train", recipe=str(waiting))
    pid = warm.begun("page")
    with warm.prefect() as client:
        client.set_flow_run_state(run, Cancelling())
    warm.wait(run, "Cancelled")
    until(lambda: not psutil.pid_exists(pid))


def test_runs_of_a_killed_worker_crash_and_the_next_is_not_kept_waiting(warm: Warm) -> None:
    """Also where a deployment allows one run at a time; what was resumed on Prefect's page stays so."""
    with warm.prefect() as client:
        iris = client.read_deployment_by_name("train-and-promote/train-iris")
        client.update_deployment_schedule(iris.id, iris.schedules[0].id, active=True)
    waiting = warm.write("waiting.py", WAITING.format(path=str(warm.directory / "killed.pid"), name="killed"))
    run = warm.schedule("train-and-promote/train-iris", recipe=str(waiting))
    warm.begun("killed")
    warm.kill()
    began = time.monotonic()
    warm.start()
    warm.wait(run, "Crashed")
    assert time.monotonic() - began < 60
    with warm.prefect() as client:
        assert [each.active for each in client.read_deployment(iris.id).schedules] == [True]
    failing = warm.write("failing.py", FAILING)
    warm.wait(warm.schedule("train-and-promote/train-iris", recipe=str(failing)), "Failed")
