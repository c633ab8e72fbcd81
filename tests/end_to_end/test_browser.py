"""
The pages that people look at, in a real browser: MLflow's and Prefect's, after real trainings.

``make screenshots`` runs this too, and takes the pictures of the README of what the tests look at.
"""

from __future__ import annotations

import io
import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image
from playwright.sync_api import Locator, Page, expect, sync_playwright

from flows.events import Event, Kind, tell
from tests.docs.pages import DOCS, commands, missing_lines
from tests.ports import free_ports
from tests.processes import forked, run_prefect
from tests.sinks import HttpSink, listening
from tests.stack import FAILING, Stack
from tests.waiting import until

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.xdist_group("stack")]

MAX_BYTES = 150_000
WINDOW = {"width": 1280, "height": 800}
COLOURS = 128
DEFAULT_PORTS = {"REST": 8501, "MLFLOW": 5000, "PREFECT": 4200, "OPERATOR": 8502}
MILLISECONDS = 20_000.0
SETTLE_MILLISECONDS = 400.0
PROJECT = Path(__file__).parents[2]
MONITORING = PROJECT / "serving" / "monitoring"
HOW_TO = [DOCS / "how-to" / f"{name}.md" for name in ("monitoring", "notifications")]


class Site:
    """A stack with two trainings done: one that was promoted, and one that was rejected."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.experiment, self.promoted = self._run_of(stack.promoted)
        _, self.rejected = self._run_of(stack.rejected)
        self.pages = f"{stack.mlflow}/#/experiments/{self.experiment}/runs"

    def _run_of(self, trained: subprocess.CompletedProcess[str]) -> tuple[str, str]:
        """The MLflow experiment and run of a training."""
        run_id = json.loads(trained.stdout)["run_id"]
        run = self.stack.ask_mlflow("GET", f"runs/get?run_id={run_id}")["run"]
        return run["info"]["experiment_id"], run_id

    def flow_runs(self, name: str) -> list[dict[str, Any]]:
        runs: list[dict[str, Any]] = self.stack.ask("flow_runs/filter", flow_runs={"name": {"any_": [name]}})
        return runs

    def with_ports(self, text: str) -> str:
        """The text with the ports of this site."""
        for name, port in DEFAULT_PORTS.items():
            text = text.replace(f":{port}", f":{self.stack.environment[f'HOTSWAP_{name}_PORT']}")
        return text

    def shell(self, command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """What a user types in the project's directory."""
        return subprocess.run(
            ["bash", "-c", self.with_ports(command)],
            env={**self.stack.environment, **environment},
            cwd=PROJECT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def tell(self, kind: Kind, times: int = 1) -> None:
        """An event of the model, as a command tells it."""
        for _ in range(times):
            tell(self.stack.settings, Event(kind, "iris", why="of a test"))


@pytest.fixture(scope="module")
def site(stack: Stack) -> Site:
    return Site(stack)


@pytest.fixture(scope="module")
def page(site: Site) -> Iterator[Page]:
    """One tab, as each loads the programs of the pages anew; what covers a quarter of MLflow's page is closed."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport=WINDOW, color_scheme="light")  # type: ignore[arg-type]
        page.set_default_timeout(MILLISECONDS)
        expect.set_options(timeout=MILLISECONDS)
        page.goto(site.pages)
        page.get_by_role("button", name="Close").click()
        expect(page.get_by_text("Ask questions about your experiments")).to_be_hidden()
        yield page
        browser.close()


def picture(page: Page, name: str) -> None:
    """For `make screenshots`, keep what the window shows as a PNG of few colours."""
    if directory := os.environ.get("HOTSWAP_SCREENSHOTS"):
        shown = Image.open(io.BytesIO(drawn(page))).convert("RGB")
        path = Path(directory) / f"{name}.png"
        shown.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
        assert 10_000 < path.stat().st_size < MAX_BYTES


def drawn(page: Page) -> bytes:
    """What the window shows once nothing moves there any more."""
    before, shown = b"", page.screenshot(animations="disabled")
    while shown != before:
        page.wait_for_timeout(SETTLE_MILLISECONDS)
        before, shown = shown, page.screenshot(animations="disabled")
    return shown


def test_mlflow_lists_the_runs_of_a_model(site: Site, page: Page) -> None:
    """Each with its source and, where it passed, its version."""
    page.goto(site.pages)
    expect(page.get_by_role("link", name="train iris seed 1", exact=True)).to_be_visible()
    expect(page.get_by_role("link", name="train iris seed 2", exact=True)).to_be_visible()
    expect(page.get_by_text("iris.py").first).to_be_visible()
    expect(page.locator("a[href$='#/models/iris/versions/1']")).to_be_visible()


def test_mlflow_shows_the_curves_and_plots_of_a_run(site: Site, page: Page) -> None:
    """The metrics by epoch are lines, the evaluation is a picture, and the gate's report is a page."""
    run = f"{site.pages}/{site.promoted}"
    page.goto(f"{run}/model-metrics")
    page.get_by_placeholder("Search metric charts").fill("train_")
    expect(page.locator(".plotly .scatterlayer path.js-line").first).to_be_visible()
    picture(page, "mlflow-curves")
    page.goto(f"{run}/artifacts")
    page.get_by_text("evaluation.png").click()
    expect(page.locator("img[src*='evaluation.png'], img[src^='blob:']").first).to_be_visible()
    page.get_by_text("gate.md").click()
    expect(page.get_by_text("accuracy").first).to_be_visible()
    page.goto(run)
    expect(page.get_by_text("test_accuracy", exact=True)).to_be_visible()
    expect(page.get_by_text("Registered models").first).to_be_visible()
    picture(page, "mlflow-run")


def test_mlflow_shows_the_versions_with_their_aliases(site: Site, page: Page) -> None:
    """The champion is marked, with the digest of its files and what became of its promotion."""
    page.goto(f"{site.stack.mlflow}/#/models/iris")
    expect(page.get_by_role("link", name="Version 1")).to_be_visible()
    expect(page.get_by_text("@ champion")).to_be_visible()
    expect(page.get_by_text("hotswap.digest").first).to_be_visible()
    expect(page.get_by_text("Version 2")).to_have_count(0)
    picture(page, "mlflow-versions")


def test_prefect_shows_a_run_with_its_logs_and_the_gates_report(site: Site, page: Page) -> None:
    """The tasks of a training, every line of its log, and why a candidate was rejected."""
    (promoted,), (rejected,) = site.flow_runs("train iris seed 1"), site.flow_runs("train iris seed 2")
    page.goto(f"{site.stack.prefect}/runs/flow-run/{promoted['id']}")
    expect(page.get_by_text("version verified").first).to_be_visible()
    picture(page, "prefect-run")
    page.goto(f"{site.stack.prefect}/runs/flow-run/{rejected['id']}")
    expect(page.get_by_text("candidate rejected").first).to_be_visible()
    wanted = {"artifacts": {"key": {"any_": ["gate-iris"]}}, "flow_runs": {"id": {"any_": [rejected["id"]]}}}
    (report,) = site.stack.ask("artifacts/filter", **wanted)
    page.goto(f"{site.stack.prefect}/artifacts/artifact/{report['id']}")
    expect(page.get_by_text("Gate: rejected")).to_be_visible()


def test_a_training_is_started_from_the_form_of_its_deployment(site: Site, page: Page) -> None:
    """Every parameter has its help; what is filled in is what the worker trains with."""
    page.goto(f"{site.stack.prefect}/deployments/deployment/{site.stack.id_of('train-iris')}/run")
    expect(page.get_by_text("How often every row is seen; else the recipe decides.")).to_be_visible()
    picture(page, "prefect-form")
    recipe = str(site.stack.write("failing.py", FAILING))
    field_of(page, "seed").fill("7")
    field_of(page, "recipe").fill(recipe)
    with page.expect_response("**/create_flow_run") as answer:
        page.get_by_role("button", name="Submit").click()
    run = site.stack.wait(answer.value.json()["id"], "Failed")
    assert (run["parameters"]["recipe"], run["parameters"]["seed"]) == (recipe, 7)
    assert "loaded by nobody" in run["state"]["message"]


def field_of(page: Page, parameter: str) -> Locator:
    """The field of the form that has this label, once it has its default."""
    label = page.get_by_text(f"{parameter} (Optional)", exact=True)
    field = page.locator(".schema-form-property", has=label).locator("input, textarea")
    expect(field).not_to_have_value("")
    return field


def test_the_automations_act_on_what_is_told(site: Site, page: Page) -> None:
    """
    Drift runs the model's deployment, and three rejected candidates pause it.

    The command of the page adds both to Prefect.
    """
    (command,) = [each for each in commands(HOW_TO[1]) if "automation create" in each.text]
    address, program, *arguments = shlex.split(site.with_ports(command.text))
    assert (address, program) == (f"PREFECT_API_URL={site.stack.environment['PREFECT_API_URL']}", "prefect")
    done = forked(site.stack.environment, run_prefect, arguments, directory=PROJECT)
    assert done.returncode == 0, done.stderr
    page.goto(f"{site.stack.prefect}/automations")
    expect(page.get_by_text("hotswap trains a model again when its data has drifted")).to_be_visible()
    expect(page.get_by_text("hotswap stops training a model whose candidates fail")).to_be_visible()

    deployment = site.stack.id_of("train-iris")
    before = [run["id"] for run in site.stack.runs(deployment)]
    site.tell(Kind.DRIFTED)
    (run,) = until(lambda: [run for run in site.stack.runs(deployment) if run["id"] not in before])
    site.stack.ask(f"flow_runs/{run['id']}/set_state", state={"type": "CANCELLED"}, force=True)
    assert not site.stack.deployment("train-iris")["paused"]
    site.tell(Kind.REJECTED, times=3)
    until(lambda: site.stack.deployment("train-iris")["paused"])
    site.stack.delete_automations()


def test_the_commands_of_the_pages_print_what_they_show(site: Site) -> None:
    """Those that ask what runs, and the one that sends a first notification."""
    for command in (each for each in commands(HOW_TO[0]) if each.text.startswith("curl")):
        done = site.shell(command.text)
        assert missing_lines(command.output, done.stdout) == [], done.stdout + done.stderr
    (command,) = [each for each in commands(HOW_TO[1]) if each.text.startswith("apprise")]
    with listening(HttpSink()) as sink:
        assert site.shell(command.text, HOTSWAP_NOTIFY=sink.address).returncode == 0
    assert [each["message"] for each in sink.received] == ["does it arrive?"]


@pytest.mark.needs("promtool")
def test_prometheus_scrapes_both_and_answers_the_dashboard(site: Site, tmp_path: Path) -> None:
    """With the project's files: both targets are up, the rules are loaded, every panel can be drawn."""
    (port,) = free_ports(1)
    config = site.with_ports((MONITORING / "prometheus.yml").read_text()).replace("15s", "1s")
    (tmp_path / "prometheus.yml").write_text(config)
    shutil.copy(MONITORING / "alerts.yml", tmp_path)
    command = ["prometheus", "--config.file=prometheus.yml", f"--web.listen-address=127.0.0.1:{port}"]
    with (tmp_path / "log").open("w") as log:
        running = subprocess.Popen([*command, "--storage.tsdb.path=data"], cwd=tmp_path, stdout=log, stderr=log)

    def is_ready() -> bool:
        with suppress(requests.ConnectionError):
            return requests.get(f"http://127.0.0.1:{port}/-/ready", timeout=10).ok
        return False

    def ask(path: str, **parameters: str) -> Any:
        answer = requests.get(f"http://127.0.0.1:{port}/api/v1/{path}", params=parameters, timeout=10)
        return answer.json().get("data")

    try:
        until(is_ready)
        until(lambda: len(ask("query", query="up == 1")["result"]) == 2)
        assert sum(len(group["rules"]) for group in ask("rules")["groups"]) > 10
        (champion,) = ask("query", query='hotswap_champion_version{model="iris"}')["result"]
        assert int(champion["value"][1]) >= 1
        dashboard = json.loads((MONITORING / "dashboard.json").read_text())
        for target in (target for panel in dashboard["panels"] for target in panel.get("targets", [])):
            query = target["expr"].replace("$model", ".*").replace("$__rate_interval", "1m")
            assert ask("query", query=query) is not None, query
    finally:
        running.terminate()
        running.wait(30)
