"""Everything that starts a training, or makes a version live, by itself, with the real servers of `hotswap up`."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from flows.events import Event, Kind, tell
from flows.promotion.deployment import Deployment
from flows.promotion.labels import PENDING
from flows.settings import Settings
from serving.repository.store import Repository
from tests.docs.pages import DOCS, commands, isolated_environment
from tests.flows.worker.test_worker import WAITING
from tests.processes import forked, hotswap, run_prefect, running
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("triggers")]

AUTOMATIONS = Path(__file__).parents[2] / "serving" / "monitoring" / "automations.yaml"
RECIPE = Path(__file__).parents[1] / "flows" / "search" / "searched_recipe.py"
MODEL = "searched"


@dataclass
class Up:
    """`hotswap up` of a directory, whose reconcile turns come too late for any test."""

    directory: Path
    environment: dict[str, str]
    process: subprocess.Popen[str]

    def end(self) -> None:
        """What `hotswap down` and Ctrl-C do; a second time it does nothing."""
        self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=60)

    def hotswap(self, *arguments: str) -> dict[str, Any]:
        """The document of a command."""
        environment = {**self.environment, "PREFECT_API_URL": self.prefect}
        done = hotswap(environment, *arguments, "--json", directory=self.directory)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    @property
    def prefect(self) -> str:
        return f"http://127.0.0.1:{self.environment['HOTSWAP_PREFECT_PORT']}/api"

    @property
    def mlflow(self) -> str:
        return f"http://127.0.0.1:{self.environment['HOTSWAP_MLFLOW_PORT']}/api/2.0/mlflow"

    @property
    def settings(self) -> Settings:
        return Settings(home=self.directory / ".hotswap", models_repo=self.directory / "models_repo")

    def deployment(self, name: str) -> dict[str, Any]:
        """What Prefect has of a deployment, as its page gets it."""
        found = requests.get(f"{self.prefect}/deployments/name/train-and-promote/{name}", timeout=10)
        found.raise_for_status()
        document: dict[str, Any] = found.json()
        return document

    def runs(self, deployment: str, *states: str) -> list[dict[str, Any]]:
        """The flow runs of a deployment that are in one of these states."""
        asked = {
            "deployments": {"id": {"any_": [deployment]}},
            "flow_runs": {"state": {"type": {"any_": list(states)}}},
        }
        found: list[dict[str, Any]] = requests.post(f"{self.prefect}/flow_runs/filter", json=asked, timeout=10).json()
        return found

    def failures(self) -> list[str]:
        """Why automations could not do what they are for."""
        asked = {"filter": {"event": {"name": ["prefect.automation.action.failed"]}}}
        found = requests.post(f"{self.prefect}/events/filter", json=asked, timeout=10).json()["events"]
        return [each["payload"]["reason"] for each in found]

    def ended(self, deployment: str, count: int = 1) -> list[dict[str, Any]]:
        """The runs of a deployment, once so many have completed."""
        until(lambda: len(self.runs(deployment, "COMPLETED")) >= count)
        return self.runs(deployment, "COMPLETED")


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory, furnish: Callable[[Path], None]) -> Iterator[Up]:
    directory = tmp_path_factory.mktemp("triggers")
    furnish(directory / ".hotswap")
    shutil.copyfile(RECIPE, directory / "searched_recipe.py")
    environment = isolated_environment(
        HOTSWAP_HOME=str(directory / ".hotswap"),
        HOTSWAP_MODELS_REPO=str(directory / "models_repo"),
        HOTSWAP_RECONCILE_SECONDS="600",
        HOTSWAP_DATA_SETTLE_SECONDS="0.5",
    )
    command = [sys.executable, "-m", "flows.cli", "up"]
    process = subprocess.Popen(command, cwd=directory, env=environment, stdout=subprocess.PIPE, text=True)
    found = Up(directory, environment, process)
    try:
        assert process.stdout is not None
        assert any("Ctrl-C" in line for line in process.stdout)
        until(lambda: requests.get(f"{found.prefect}/deployments/name/train-and-promote/train", timeout=10).ok)
        until(lambda: requests.get(f"{found.mlflow}/webhooks", timeout=10).json().get("webhooks"))
        yield found
    finally:
        found.end()


@pytest.fixture(scope="module")
def first(up: Up) -> int:
    """The version that the command line has trained."""
    return int(up.hotswap("train", "searched_recipe.py")["version"])


@pytest.fixture(scope="module")
def second(up: Up, first: int) -> int:
    """The version that Prefect's own command has trained, with a seed of its own."""
    recipe = f"recipe={up.directory / 'searched_recipe.py'}"
    command = ["deployment", "run", "train-and-promote/train", "--param", recipe, "--param", "seed=44"]
    done = forked({**up.environment, "PREFECT_API_URL": up.prefect}, run_prefect, command)
    assert done.returncode == 0, done.stdout + done.stderr
    deployment = up.deployment("train")["id"]
    runs = until(lambda: [run for run in up.runs(deployment, "COMPLETED") if run["parameters"].get("seed") == 44])
    assert runs[0]["parameters"]["recipe"].endswith("searched_recipe.py")
    return max(Repository(up.settings.models_repo).versions(MODEL))


def test_prefects_page_has_a_form_with_types_ranges_choices_and_help(up: Up) -> None:
    """The deployment's schema says all that the command line says."""
    properties = up.deployment("train")["parameter_openapi_schema"]["properties"]
    assert (properties["seed"]["type"], properties["seed"]["minimum"], properties["seed"]["maximum"]) == (
        "integer",
        0,
        2**32 - 1,
    )
    assert properties["seed"]["default"] == 42
    assert "the held-out rows are always the same" in properties["seed"]["description"]
    assert {"enum": ["classification", "regression"], "type": "string"} in properties["task"]["anyOf"]
    assert properties["approve"]["type"] == "boolean"
    assert all(each.get("description") for each in properties.values())


def test_a_deployment_is_run_by_prefects_own_command(first: int, second: int) -> None:
    """``prefect deployment run`` trains in the worker, with the parameters that it is given."""
    assert second > first


def test_a_schedule_is_in_its_time_zone(up: Up) -> None:
    """``hotswap schedule --cron`` makes a deployment with the schedule, and the same again replaces it."""
    for cron in ("0 7 * * 2", "0 6 * * 1"):
        up.hotswap("schedule", "searched_recipe.py", "--cron", cron, "--timezone", "Europe/Berlin", "--seed", "5")
    deployment = up.deployment(f"scheduled-{MODEL}")
    (schedule,) = deployment["schedules"]
    assert (schedule["schedule"]["cron"], schedule["schedule"]["timezone"]) == ("0 6 * * 1", "Europe/Berlin")
    assert deployment["parameters"]["seed"] == 5
    assert deployment["parameters"]["recipe"] == str(up.directory / "searched_recipe.py")
    (listed,) = up.hotswap("schedule")["schedules"]
    assert listed["when"] == "by 0 6 * * 1 (Europe/Berlin)"
    up.hotswap("schedule", "searched_recipe.py", "--remove")
    assert up.hotswap("schedule")["schedules"] == []


def test_an_interval_trains_again_and_again(up: Up) -> None:
    """The runs begin by themselves; they end when the schedule is taken away."""
    made = up.hotswap("schedule", "searched_recipe.py", "--every", "0.001", "--min-accuracy", "1")["deployment"]
    assert "auto-scheduled" in up.ended(made)[0]["tags"]
    up.hotswap("schedule", "searched_recipe.py", "--remove")
    assert up.runs(made, "SCHEDULED") == []


def test_an_interval_is_a_schedule_of_prefect(up: Up) -> None:
    """It is active, and in the pool that the worker serves."""
    up.hotswap("schedule", "searched_recipe.py", "--every", "0.5")
    deployment = up.deployment(f"scheduled-{MODEL}")
    (schedule,) = deployment["schedules"]
    assert (schedule["active"], schedule["schedule"]["interval"]) == (True, 1800.0)
    assert (deployment["paused"], deployment["work_pool_name"]) == (False, "hotswap")
    up.hotswap("schedule", "searched_recipe.py", "--remove")


def test_new_data_trains_by_itself(up: Up) -> None:
    """A file in a watched folder starts one run; what is only touched starts none."""
    data = up.directory / "data"
    data.mkdir()
    (data / "monday.csv").write_text("a,b\n1,2\n")
    options = ("--when-changed", "data", "--min-accuracy", "1")
    made = up.hotswap("schedule", "searched_recipe.py", *options)["deployment"]
    (data / "monday.csv").touch()  # the operator has not looked at it yet
    (data / "tuesday.csv").write_text("a,b\n3,4\n")
    (by_data,) = up.ended(made)
    assert "data changed" in by_data["tags"]
    up.hotswap("schedule", "searched_recipe.py", "--remove")


def test_one_event_of_drift_starts_one_training(up: Up) -> None:
    """The automation for all models that ships finds no deployment for one that has a trigger of its own."""
    (for_all,) = [each for each in yaml.safe_load(AUTOMATIONS.read_text())["automations"] if "drifted" in each["name"]]
    requests.post(f"{up.prefect}/automations/", json=for_all, timeout=10).raise_for_status()
    made = up.hotswap("schedule", "searched_recipe.py", "--when-drifted", "--min-accuracy", "1")["deployment"]
    tell(up.settings, Event(Kind.DRIFTED, MODEL, 1, "a test"))
    (run,) = up.ended(made)
    until(lambda: up.failures() == ["No deployment could be inferred"])
    assert up.runs(made, "SCHEDULED", "PENDING", "RUNNING", "COMPLETED") == [run]
    up.hotswap("schedule", "searched_recipe.py", "--remove")


@pytest.mark.parametrize("page", ["schedule.md", "new-data.md"])
def test_the_pages_say_what_works(up: Up, page: str) -> None:
    """Every command of them ends with its exit code, and what they scheduled can be taken away again."""
    rows = "".join(f"{number % 9},{'yes' if number % 5 < 2 else 'no'}\n" for number in range(60))
    (up.directory / "churn.csv").write_text(f"age,churned\n{rows}")
    for command in commands(DOCS / "how-to" / page):
        up.hotswap(*shlex.split(command.text)[1:])
    for each in up.hotswap("schedule")["schedules"]:
        table = ("--csv", "churn.csv", "--target", "churned") if each["model"] == "churn" else (each["model"],)
        up.hotswap("schedule", *table, "--remove")
    assert up.hotswap("schedule")["schedules"] == []


@pytest.mark.soak
def test_the_page_of_candidates_says_what_works(up: Up) -> None:
    """Both trainings go live."""
    for command in commands(DOCS / "how-to" / "candidates.md"):
        assert up.hotswap(*shlex.split(command.text)[1:])["chosen"]


@pytest.mark.soak
def test_the_page_of_approvals_says_what_works(up: Up) -> None:
    """One waiting version is approved, the next one is rejected."""
    train, *answers = [shlex.split(command.text)[1:] for command in commands(DOCS / "how-to" / "approval.md")]
    environment = {**up.environment, "PREFECT_API_URL": up.prefect}
    for answer in answers:
        waiting = running(environment, *train, "--json", directory=up.directory)
        until(lambda: PENDING in Deployment(up.settings, "iris").labels.read())
        up.hotswap(*answer)
        waiting.communicate()
        assert waiting.returncode == (7 if "--reject" in answer else 0)


def test_an_alias_that_is_moved_in_mlflow_moves_the_label_at_once(up: Up, first: int, second: int) -> None:
    """MLflow tells the operator by its webhook, long before the next reconcile turn."""
    assert labels(up) == {"stable": second}
    alias = {"name": MODEL, "alias": "champion", "version": str(first)}
    requests.post(f"{up.mlflow}/registered-models/alias", json=alias, timeout=10).raise_for_status()
    until(lambda: labels(up) == {"stable": first})


def labels(up: Up) -> dict[str, int]:
    return Deployment(up.settings, MODEL).labels.read()


def test_what_trains_when_up_ends_is_cancelled(up: Up) -> None:
    """Prefect shows nothing as running for ever. This ends what the tests above share, so it is the last one."""
    begun = up.directory / "begun.pid"
    (up.directory / "waiting.py").write_text(textwrap.dedent(WAITING.format(path=str(begun), name="waiting")))
    environment = {**up.environment, "PREFECT_API_URL": up.prefect}
    command = running(environment, "train", "waiting.py", directory=up.directory)
    until(begun.exists)
    up.end()
    _, errors = command.communicate()
    assert (command.returncode, "interrupted; " in errors) == (130, True)
    with closing(sqlite3.connect(up.directory / ".hotswap" / "prefect" / "prefect.db")) as database:
        states = database.execute("SELECT state_type FROM flow_run WHERE parameters LIKE '%waiting.py%'").fetchall()
    assert states == [("CANCELLED",)]
