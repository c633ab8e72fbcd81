"""Everything that starts a training, or makes a version live, by itself, with the real servers of `hotswap up`."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.events import Event, Kind, tell
from flows.promotion.deployment import Deployment
from flows.promotion.labels import PENDING
from tests.conftest import TinyModel
from tests.docs.pages import DOCS, commands
from tests.processes import forked, run_prefect, running
from tests.stack import FAILING, Stack
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("stack")]

AUTOMATIONS = Path(__file__).parents[2] / "serving" / "monitoring" / "automations.yaml"
MODEL = "failing"
"""of a recipe whose training has begun when it fails: what starts it is what counts here"""


@pytest.fixture(scope="module")
def recipe(stack: Stack) -> str:
    """The path of the recipe."""
    return str(stack.write(f"{MODEL}.py", FAILING))


def begun(stack: Stack, deployment: str, **parameters: Any) -> dict[str, Any]:
    """The first flow run of a deployment, with these parameters, that the worker has done."""

    def done() -> list[dict[str, Any]]:
        runs = stack.runs(deployment, "FAILED")
        return [run for run in runs if parameters.items() <= run["parameters"].items()]

    run = until(done)[-1]
    assert "loaded by nobody" in run["state"]["message"]
    return run


def test_prefects_page_has_a_form_with_types_ranges_choices_and_help(stack: Stack) -> None:
    """The deployment's schema says all that the command line says."""
    properties = stack.deployment("train")["parameter_openapi_schema"]["properties"]
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


def test_a_deployment_is_run_by_prefects_own_command(stack: Stack, recipe: str) -> None:
    """``prefect deployment run`` trains in the worker, with the parameters that it is given."""
    parameters = ("--param", f"recipe={recipe}", "--param", "seed=44")
    command = ["deployment", "run", "train-and-promote/train", *parameters]
    done = forked(stack.environment, run_prefect, command)
    assert done.returncode == 0, done.stdout + done.stderr
    run = begun(stack, stack.id_of("train"), seed=44)
    assert (run["parameters"]["recipe"], run["parameters"]["seed"]) == (recipe, 44)


def test_a_schedule_is_in_its_time_zone(stack: Stack, recipe: str) -> None:
    """``hotswap schedule --cron`` makes a deployment with the schedule, and the same again replaces it."""
    for cron in ("0 7 * * 2", "0 6 * * 1"):
        stack.document("schedule", recipe, "--cron", cron, "--timezone", "Europe/Berlin", "--seed", "5")
    deployment = stack.deployment(f"scheduled-{MODEL}")
    (schedule,) = deployment["schedules"]
    assert (schedule["schedule"]["cron"], schedule["schedule"]["timezone"]) == ("0 6 * * 1", "Europe/Berlin")
    assert (deployment["parameters"]["recipe"], deployment["parameters"]["seed"]) == (recipe, 5)
    (listed,) = stack.document("schedule")["schedules"]
    assert listed["when"] == "by 0 6 * * 1 (Europe/Berlin)"
    stack.document("schedule", recipe, "--remove")
    assert stack.document("schedule")["schedules"] == []


def test_an_interval_trains_again_and_again(stack: Stack, recipe: str) -> None:
    """It is a schedule of Prefect in the pool that the worker serves; it ends when the schedule is taken away."""
    made = stack.document("schedule", recipe, "--every", "0.001")["deployment"]
    deployment = stack.deployment(f"scheduled-{MODEL}")
    (schedule,) = deployment["schedules"]
    assert (schedule["active"], schedule["schedule"]["interval"]) == (True, 3.6)
    assert (deployment["paused"], deployment["work_pool_name"]) == (False, "hotswap")
    assert "auto-scheduled" in begun(stack, made)["tags"]
    until(lambda: len(stack.runs(made, "FAILED")) > 1)
    stack.document("schedule", recipe, "--remove")
    assert stack.runs(made, "SCHEDULED") == []


def test_new_data_trains_by_itself(stack: Stack, recipe: str) -> None:
    """A file in a watched folder starts one run; what is only touched starts none."""
    data = stack.directory / "data"
    data.mkdir()
    (data / "monday.csv").write_text("a,b\n1,2\n")
    made = stack.document("schedule", recipe, "--when-changed", "data")["deployment"]
    (data / "monday.csv").touch()  # the operator has not looked at it yet
    (data / "tuesday.csv").write_text("a,b\n3,4\n")
    run = begun(stack, made)
    assert "data changed" in run["tags"]
    assert [each["id"] for each in stack.runs(made)] == [run["id"]]
    stack.document("schedule", recipe, "--remove")


def automate(stack: Stack, word: str) -> None:
    """Add the one of the automations for all models that ship whose name has this word."""
    (found,) = [each for each in yaml.safe_load(AUTOMATIONS.read_text())["automations"] if word in each["name"]]
    stack.ask("automations/", **found)


def test_one_event_of_drift_starts_one_training(stack: Stack, recipe: str) -> None:
    """The automation for all models that ships finds no deployment for one that has a trigger of its own."""
    automate(stack, "drifted")
    made = stack.document("schedule", recipe, "--when-drifted")["deployment"]
    tell(stack.settings, Event(Kind.DRIFTED, MODEL, 1, "a test"))
    run = begun(stack, made)
    until(lambda: failures(stack) == ["No deployment could be inferred"])
    assert [each["id"] for each in stack.runs(made)] == [run["id"]]
    stack.document("schedule", recipe, "--remove")
    stack.delete_automations()


@pytest.mark.parametrize("own", [True, False], ids=["its own automation", "that for all models"])
def test_drift_starts_no_training_of_a_paused_deployment(own: bool, stack: Stack, recipe: str) -> None:
    """What happens while it is paused is not made up for when it goes on; only what is told after that starts one."""
    if own:
        made = stack.document("schedule", recipe, "--when-drifted")["deployment"]
    else:
        made = stack.ask("deployments/", name=f"of {MODEL}", parameters={"recipe": recipe}, **as_train(stack))["id"]
    automate(stack, "drifted")
    stack.ask(f"deployments/{made}/pause_deployment")
    before = len(failures(stack))
    tell(stack.settings, Event(Kind.DRIFTED, MODEL, 1, "a test"))
    until(lambda: len(failures(stack)) == before + 1)
    assert stack.runs(made) == []  # as that of its own has been looked at too
    stack.ask(f"deployments/{made}/resume_deployment")
    tell(stack.settings, Event(Kind.DRIFTED, MODEL, 1, "a test"))
    run = begun(stack, made)
    assert [each["id"] for each in stack.runs(made)] == [run["id"]]
    stack.delete_automations()
    if own:
        stack.document("schedule", recipe, "--remove")
    else:
        stack.delete_deployment(f"of {MODEL}")


def as_train(stack: Stack) -> dict[str, Any]:
    """What a deployment takes from that for any model, so that the worker serves it."""
    template = stack.deployment("train")
    return {name: template[name] for name in ("flow_id", "entrypoint", "path", "work_pool_name")}


def test_each_three_failures_pause_another_deployment_of_a_model(stack: Stack, recipe: str) -> None:
    """First the one that ran last, whose candidates these are, then those that still train the model."""
    automate(stack, "fail again")
    names = [f"{each} of {MODEL}" for each in ("a", "b", "c")]
    for name in names:
        stack.ask("deployments/", name=name, tags=[MODEL], parameters={"recipe": recipe}, **as_train(stack))
    stack.wait(stack.schedule(names[1]), "Failed")
    for expected in (names[1:2], names[:2], names):
        for _ in range(3):
            tell(stack.settings, Event(Kind.REJECTED, MODEL, why="a test"))
        until(partial(are_paused, stack, names, expected))
    stack.delete_automations()
    for name in names:
        stack.delete_deployment(name)


def are_paused(stack: Stack, names: list[str], expected: list[str]) -> bool:
    """Whether the expected ones of these deployments are paused, and no other."""
    return [name for name in names if stack.deployment(name)["paused"]] == expected


def failures(stack: Stack) -> list[str]:
    """Why automations could not do what they are for."""
    found = stack.ask("events/filter", filter={"event": {"name": ["prefect.automation.action.failed"]}})["events"]
    return [each["payload"]["reason"] for each in found]


@pytest.mark.parametrize("page", ["schedule.md", "new-data.md"])
def test_the_pages_say_what_works(stack: Stack, page: str) -> None:
    """Every command of them ends with its exit code, and what they scheduled can be taken away again."""
    rows = "".join(f"{number % 9},{'yes' if number % 5 < 2 else 'no'}\n" for number in range(60))
    (stack.directory / "churn.csv").write_text(f"age,churned\n{rows}")
    for command in commands(DOCS / "how-to" / page):
        stack.document(*shlex.split(command.text)[1:])
    for each in stack.document("schedule")["schedules"]:
        table = ("--csv", "churn.csv", "--target", "churned") if each["model"] == "churn" else (each["model"],)
        stack.document("schedule", *table, "--remove")
    assert stack.document("schedule")["schedules"] == []


@pytest.mark.soak
def test_the_page_of_candidates_says_what_works(stack: Stack) -> None:
    """Both trainings go live."""
    for command in commands(DOCS / "how-to" / "candidates.md"):
        assert stack.document(*shlex.split(command.text)[1:])["chosen"]


@pytest.mark.soak
def test_the_page_of_approvals_says_what_works(stack: Stack) -> None:
    """One waiting version is approved, the next one is rejected."""
    train, *answers = [shlex.split(command.text)[1:] for command in commands(DOCS / "how-to" / "approval.md")]
    for answer in answers:
        waiting = running(stack.environment, *train, "--json", directory=stack.directory)
        until(lambda: PENDING in Deployment(stack.settings, "iris").labels.read())
        stack.document(*answer)
        waiting.communicate()
        assert waiting.returncode == (7 if "--reject" in answer else 0)


def test_an_alias_that_is_moved_in_mlflow_moves_the_label_at_once(stack: Stack, tiny_model: TinyModel) -> None:
    """MLflow tells the operator by its webhook, long before the next reconcile turn."""
    first, second = (promoted(stack, tiny_model(stack.directory / "given", kind)) for kind in (1, 2))
    labels = Deployment(stack.settings, "moved").labels
    assert labels.read() == {"stable": second}
    stack.ask_mlflow("POST", "registered-models/alias", name="moved", alias="champion", version=str(first))
    until(lambda: labels.read() == {"stable": first})


def promoted(stack: Stack, saved_model: Path) -> int:
    """The version that somebody's SavedModel has become."""
    given = ("--saved-model", str(saved_model), "--unevaluated", "a test")
    return int(stack.document("promote", "moved", *given)["version"])
