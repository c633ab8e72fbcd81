"""
One `hotswap up` with everything, for all tests that need a worker and pages: to start it takes 8 s of processor time.

They are one group of xdist, so they run one after the other; the names of their models and recipes are their own. A run
that only waits is there from the start: beside it the worker rehearses nothing, which it else does after each command.
It is told where to tell of what happens, and keeps what is asked, as the page on operating has it.
"""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import textwrap
from collections.abc import Mapping
from contextlib import closing
from functools import cached_property
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import psutil
import requests

from flows.settings import Settings
from tests.docs.pages import isolated_environment
from tests.processes import Piped, hotswap, running
from tests.sinks import HttpSink
from tests.waiting import until

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
FAILING = """
    import os
    from dataclasses import replace
    from flows.recipes import iris

    def load():
        raise ValueError("loaded by " + os.environ.get("OWN_NAME", "nobody"))

    RECIPE = replace(iris.RECIPE, name="failing", load=load)
    """


class Stack:
    """`hotswap up` of a directory, whose reconcile turns come too late for any test."""

    def __init__(self, directory: Path, python: str, sandbox: Path) -> None:
        self.directory = directory
        self._python = python
        self.home = directory / ".hotswap"
        self.told = HttpSink()
        self._held: list[Piped] = []
        self._own_environment = isolated_environment(
            HOTSWAP_HOME=str(self.home),
            HOTSWAP_MODELS_REPO=str(directory / "models_repo"),
            HOTSWAP_RECONCILE_SECONDS="600",
            HOTSWAP_DATA_SETTLE_SECONDS="0.5",
            HOTSWAP_NOTIFY=self.told.address,
            HOTSWAP_REQUEST_LOG="1",
        )
        self.prefect, self.mlflow = (
            f"http://127.0.0.1:{self._own_environment[f'HOTSWAP_{name}_PORT']}" for name in ("PREFECT", "MLFLOW")
        )
        commands = {"PREFECT_API_URL": f"{self.prefect}/api", "HOTSWAP_SANDBOX_SERVER": str(sandbox)}
        self.environment = {**self._own_environment, **commands}
        """of commands"""

    def start(self) -> None:
        """Return when everything is ready, and the run waits that keeps the worker from rehearsing."""
        served = self.times_served
        command = [self._python, "-m", "flows.cli", "up"]
        self.process = subprocess.Popen(
            command, cwd=self.directory, env=self._own_environment, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        assert any("Ctrl-C" in line for line in self.process.stdout)
        until(lambda: self.times_served > served)
        until(lambda: self.ask_mlflow("GET", "webhooks").get("webhooks"))
        self.hold()

    def hold(self) -> None:
        """Let the run wait that keeps the worker from rehearsing."""
        self._held.append(self.wait_in_training("held"))

    def end(self) -> None:
        """What `hotswap down` and Ctrl-C do, unless it has ended."""
        if not self.has_ended:
            self.process.send_signal(signal.SIGINT)
            self.process.communicate(timeout=60)
            while self._held:
                self._held.pop().communicate()

    @property
    def has_ended(self) -> bool:
        return self.process.poll() is not None

    @property
    def worker(self) -> psutil.Process:
        """The process that `hotswap up` keeps running for trainings."""
        up = psutil.Process(json.loads((self.home / "up.json").read_text())["pid"])
        (found,) = [each for each in up.children() if "flows.worker" in each.cmdline()]
        return found

    @property
    def times_served(self) -> int:
        """How often the worker has begun to serve."""
        log = self.home / "logs" / "worker.log"
        return log.read_text().count("the worker serves") if log.exists() else 0

    @property
    def settings(self) -> Settings:
        return Settings(home=self.home, models_repo=self.directory / "models_repo")

    def hotswap(
        self, *arguments: str, directory: Path | None = None, variables: Mapping[str, str] | None = None
    ) -> CompletedProcess[str]:
        """A command that has ended."""
        environment = {**self.environment, **(variables or {})}
        return hotswap(environment, *arguments, directory=directory or self.directory)

    def document(self, *arguments: str) -> dict[str, Any]:
        """What a command prints that has done what it was to do."""
        done = self.hotswap(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def write(self, name: str, text: str) -> Path:
        """A recipe of the user's own, in a directory below the project."""
        path = self.directory / "below" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def write_waiting(self, name: str) -> Path:
        """A recipe whose training waits for its end."""
        self._pid_file(name).unlink(missing_ok=True)
        return self.write(f"{name}.py", WAITING.format(path=str(self._pid_file(name)), name=name))

    def wait_in_training(self, name: str) -> Piped:
        """A command that trains this recipe, and has begun to wait."""
        recipe = self.write_waiting(name)
        command = running(self.environment, "train", recipe.name, directory=recipe.parent)
        self.begun(name)
        return command

    def begun(self, name: str) -> int:
        """The process that waits in a training of this recipe."""
        file = self._pid_file(name)
        until(lambda: file.exists() and file.read_text())
        return int(file.read_text())

    def _pid_file(self, name: str) -> Path:
        return self.directory / f"{name}.pid"

    @cached_property
    def promoted(self) -> CompletedProcess[str]:
        """A training of iris that was promoted, as version 1."""
        return self._trained(0, "--seed", "1")

    @cached_property
    def rejected(self) -> CompletedProcess[str]:
        """A training of iris that was rejected."""
        return self._trained(3, "--seed", "2", "--epochs", "1", "--min-accuracy", "1")

    def _trained(self, exit_code: int, *options: str) -> CompletedProcess[str]:
        done = self.hotswap("train", "iris", *options, "--json")
        assert done.returncode == exit_code, done.stderr
        return done

    def ask(self, path: str, /, **body: Any) -> Any:
        """What Prefect's server answers to a POST request."""
        answer = requests.post(f"{self.prefect}/api/{path}", json=body, timeout=30)
        answer.raise_for_status()
        return answer.json()

    def ask_mlflow(self, method: str, path: str, **body: Any) -> Any:
        """What MLflow's server answers."""
        url = f"{self.mlflow}/api/2.0/mlflow/{path}"
        answer = requests.request(method, url, json=body or None, timeout=30)
        answer.raise_for_status()
        return answer.json()

    def deployment(self, name: str) -> dict[str, Any]:
        """What Prefect has of a deployment, as its page gets it."""
        (found,) = self.ask("deployments/filter", deployments={"name": {"any_": [name]}})
        document: dict[str, Any] = found
        return document

    def id_of(self, deployment: str) -> str:
        return str(self.deployment(deployment)["id"])

    def delete_deployment(self, name: str) -> None:
        requests.delete(f"{self.prefect}/api/deployments/{self.id_of(name)}", timeout=30).raise_for_status()

    def runs(self, deployment: str, *states: str) -> list[dict[str, Any]]:
        """The flow runs of a deployment, by its id, newest first; with `states`, those in one of them."""
        asked: dict[str, Any] = {"deployment_id": {"any_": [deployment]}}
        if states:
            asked["state"] = {"type": {"any_": list(states)}}
        runs: list[dict[str, Any]] = self.ask("flow_runs/filter", flow_runs=asked, sort="START_TIME_DESC")
        return runs

    def newest_training(self) -> dict[str, Any]:
        """The flow run of the last training of the command line."""
        return self.runs(self.id_of("train"))[0]

    def schedule(self, deployment: str, **parameters: Any) -> str:
        """The id of a flow run, made as by the button Run of Prefect's page."""
        made = self.ask(f"deployments/{self.id_of(deployment)}/create_flow_run", parameters=parameters)
        return str(made["id"])

    def run(self, flow_run: str) -> dict[str, Any]:
        (found,) = self.ask("flow_runs/filter", flow_runs={"id": {"any_": [flow_run]}})
        run: dict[str, Any] = found
        return run

    def wait(self, flow_run: str, state: str) -> dict[str, Any]:
        """The flow run, once it has this state."""
        until(lambda: self.run(flow_run)["state_name"] == state)
        return self.run(flow_run)

    def set_state(self, flow_run: str, state: str) -> None:
        """What a button of Prefect's page does."""
        self.ask(f"flow_runs/{flow_run}/set_state", state={"type": state})

    def lines(self, flow_run: str) -> list[str]:
        """What Prefect has as the log of a flow run."""
        logs = self.ask("logs/filter", logs={"flow_run_id": {"any_": [flow_run]}}, limit=200)
        return [each["message"] for each in logs if not each["name"].startswith("prefect")]

    def delete_automations(self) -> None:
        """Those of the file that ships, which a test has made."""
        for each in self.ask("automations/filter"):
            if each["name"].startswith("hotswap "):
                requests.delete(f"{self.prefect}/api/automations/{each['id']}", timeout=30).raise_for_status()

    def states_on_disk(self, *recipes: str) -> list[str]:
        """The states of the flow runs that train these recipes, when no server runs any more."""
        wanted = "SELECT state_type FROM flow_run WHERE parameters LIKE ?"
        with closing(sqlite3.connect(self.home / "prefect" / "prefect.db")) as database:
            return [state for name in recipes for (state,) in database.execute(wanted, [f"%{name}.py%"])]
