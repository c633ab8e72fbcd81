"""The worker of `hotswap up`: commands and scheduled runs, each in a new process that has everything imported."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path

import psutil
import pytest
import requests

from tests.conftest import TinyModel
from tests.stack import FAILING, Stack
from tests.waiting import until

pytestmark = [pytest.mark.xdist_group("stack"), pytest.mark.slow]

CONVERTING = """
    import tempfile
    from dataclasses import replace
    from pathlib import Path

    import tensorflow as tf

    from flows.recipes import iris

    def load():
        tf.function(lambda row: row * 2.0)(tf.constant(1.0))
        made = list(Path(tempfile.gettempdir()).glob("__autograph*.py"))
        raise ValueError(f"{len(made)} made in {tempfile.gettempdir()}")

    RECIPE = replace(iris.RECIPE, name="converting", load=load)
    """


def test_a_training_of_the_command_line_is_a_run_of_the_deployment(stack: Stack) -> None:
    """It prints what it would print by itself, and Prefect has parameters and every line of it."""
    done = stack.promoted
    assert json.loads(done.stdout)["model"] == "iris"
    said = said_by(done.stderr)
    assert {"loading TensorFlow", "data loaded recipe=iris train=120 test=30"} <= set(said)
    (run,) = [run for run in stack.runs(stack.id_of("train")) if run["name"] == "train iris seed 1"]
    assert (run["parameters"]["recipe"], run["parameters"]["seed"], run["state_type"]) == ("iris", 1, "COMPLETED")
    assert not_kept(said, stack.lines(run["id"])) == []


def test_a_promotion_of_the_command_line_is_a_run_of_the_deployment(stack: Stack, tiny_model: TinyModel) -> None:
    """Rejected, passed or wrong: the exit codes are those of the command, and Prefect has its parameters and lines."""
    run_id = json.loads(stack.rejected.stdout)["run_id"]
    rejected = stack.hotswap("promote", "iris", "--run", run_id, "--min-accuracy", "1", "--json")
    assert (rejected.returncode, json.loads(rejected.stdout)["decision"]) == (3, "rejected"), rejected.stderr
    promotions = stack.id_of("promote")
    run = stack.runs(promotions)[0]
    assert (run["parameters"]["run"], run["state_name"]) == (run_id, "Rejected")
    said = said_by(rejected.stderr)
    assert said
    assert not_kept(said, stack.lines(run["id"])) == []
    given = ("--saved-model", str(tiny_model(stack.directory / "given", 3)), "--unevaluated", "a test")
    passed = stack.hotswap("promote", "given", *given, "--json")
    assert (passed.returncode, json.loads(passed.stdout)["version"]) == (0, 1), passed.stderr
    assert stack.runs(promotions)[0]["state_name"] == "Completed"
    assert stack.hotswap("promote", "given", "--run", "nobody", "--unevaluated", "a test").returncode == 1
    assert "done here" not in rejected.stderr + passed.stderr


def said_by(errors: str) -> list[str]:
    """The lines that a command has written with the time."""
    return [line.partition(" ")[2].rstrip("…") for line in errors.splitlines() if line[2:3] == ":"]


def not_kept(said: list[str], kept: list[str]) -> list[str]:
    """What was said and is in no line that was kept."""
    return [line for line in said if not any(_short(each).startswith(line) for each in kept)]


def _short(line: str) -> str:
    """A line as the command line shows it."""
    return re.sub(r"\b([0-9a-f]{8})[0-9a-f]{24}\b", r"\1", line)


def test_mistakes_are_told_as_without_a_worker(stack: Stack) -> None:
    """In one sentence and with the exit code of each, and Prefect hears of none of them."""
    trainings = stack.id_of("train")
    before = len(stack.runs(trainings))
    unknown, wrong = stack.hotswap("train", "nobody"), stack.hotswap("train", "iris", "--epochs", "many")
    assert (unknown.returncode, wrong.returncode) == (1, 2)
    assert unknown.stderr.startswith("hotswap: There is no recipe 'nobody'")
    assert "see `hotswap train --help`" in " ".join(wrong.stderr.split())
    assert len(stack.runs(trainings)) == before


def test_what_is_read_at_import_or_names_another_prefect_is_done_by_the_command_itself(stack: Stack) -> None:
    """It says so, and why."""
    for name, value in (("KERAS_BACKEND", "jax"), ("PREFECT_API_URL", "http://127.0.0.1:1/api")):
        done = stack.hotswap("train", "nobody", variables={name: value})
        assert done.returncode == 1
        assert f"hotswap: done here, not by the worker of `hotswap up`: {name}" in done.stderr


def test_ctrl_c_cancels_the_run(stack: Stack) -> None:
    """The command says what it says without a worker, and Prefect has the run as cancelled."""
    command = stack.wait_in_training("cancel")
    pid = stack.begun("cancel")
    command.send_signal(signal.SIGINT)
    _, errors = command.communicate()
    assert command.returncode == 130
    assert "interrupted; `hotswap status` shows what is live" in errors
    assert stack.newest_training()["state_name"] == "Cancelled"
    until(lambda: not psutil.pid_exists(pid))


def test_a_command_that_goes_takes_its_run_along(stack: Stack) -> None:
    """As a process of its own would end with it."""
    command = stack.wait_in_training("gone")
    pid = stack.begun("gone")
    command.kill()
    command.communicate()
    until(lambda: not psutil.pid_exists(pid))
    stack.wait(stack.newest_training()["id"], "Cancelled")


def test_a_killed_process_is_told_and_the_next_command_runs(stack: Stack) -> None:
    """
    The command ends with 1 and what to do, and Prefect has the run as crashed.

    The next one's recipe is found where the command is given, and sees its variables.
    """
    command = stack.wait_in_training("kill")
    os.kill(stack.begun("kill"), signal.SIGKILL)
    _, errors = command.communicate()
    assert command.returncode == 1
    assert "hotswap: The process that did this was killed" in errors
    stack.wait(stack.newest_training()["id"], "Crashed")
    below = stack.write("failing.py", FAILING).parent
    failed = stack.hotswap("train", "failing.py", directory=below, variables={"OWN_NAME": "the next"})
    assert failed.returncode == 1
    assert "loaded by the next" in " ".join(failed.stderr.split())
    assert "done here" not in failed.stderr


def test_a_recipe_is_read_anew_each_time(stack: Stack) -> None:
    """What was changed meanwhile counts."""
    below = stack.write("failing.py", FAILING.replace("nobody", "what was changed")).parent
    failed = stack.hotswap("train", "failing.py", directory=below)
    assert failed.returncode == 1
    assert "loaded by what was changed" in " ".join(failed.stderr.split())


def test_a_command_leaves_nothing_in_its_temporary_directory(stack: Stack, tmp_path: Path) -> None:
    """It is that of the command, and what AutoGraph puts there does not stay."""
    below = stack.write("converting.py", CONVERTING).parent
    failed = stack.hotswap("train", "converting.py", directory=below, variables={"TMPDIR": str(tmp_path)})
    assert f"1 made in {tmp_path}" in " ".join(failed.stderr.split())
    assert "done here" not in failed.stderr
    assert list(tmp_path.glob("*.py")) == []


def test_what_is_cancelled_on_prefects_page_ends(stack: Stack) -> None:
    """Its process too."""
    run = stack.schedule("train", recipe=str(stack.write_waiting("page")))
    pid = stack.begun("page")
    stack.set_state(run, "CANCELLING")
    stack.wait(run, "Cancelled")
    until(lambda: not psutil.pid_exists(pid))


def test_runs_of_a_killed_worker_crash_and_the_next_is_not_kept_waiting(stack: Stack) -> None:
    """Also where a deployment allows one run at a time; what was resumed on Prefect's page stays so."""
    iris = stack.deployment("train-iris")
    resumed = f"{stack.prefect}/api/deployments/{iris['id']}/schedules/{iris['schedules'][0]['id']}"
    requests.patch(resumed, json={"active": True}, timeout=10).raise_for_status()
    requests.post(f"{stack.prefect}/api/deployments/{iris['id']}/resume_deployment", timeout=10).raise_for_status()
    run = stack.schedule("train-iris", recipe=str(stack.write_waiting("killed")))
    stack.begun("killed")
    served, began = stack.times_served, time.monotonic()
    os.killpg(stack.worker.pid, signal.SIGKILL)
    until(lambda: stack.times_served > served)
    stack.wait(run, "Crashed")
    assert time.monotonic() - began < 60
    stack.hold()
    assert [each["active"] for each in stack.deployment("train-iris")["schedules"]] == [True]
    failing = stack.write("failing.py", FAILING)
    stack.wait(stack.schedule("train-iris", recipe=str(failing)), "Failed")


def test_what_trains_when_up_ends_is_cancelled(stack: Stack) -> None:
    """Its command says that it was interrupted, and Prefect shows nothing as running for ever."""
    command = stack.wait_in_training("typed")
    scheduled = stack.write_waiting("scheduled")
    stack.schedule("train", recipe=str(scheduled))
    pids = [stack.begun(name) for name in ("typed", "scheduled")]
    stack.end()
    _, errors = command.communicate()
    assert command.returncode == 130
    assert "interrupted; `hotswap status` shows what is live" in errors
    assert not any(map(psutil.pid_exists, pids))
    assert stack.states_on_disk("typed", "scheduled") == ["CANCELLED", "CANCELLED"]
