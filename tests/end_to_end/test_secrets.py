"""
No secret is shown or kept while everything runs: on a terminal, in a log, in MLflow, in Prefect, in the journal.

Trainings are of the commands themselves, and in the long form of the worker. Everything has a proxy that leads nowhere.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from tests.ports import stack_ports
from tests.processes import Piped, behind_a_dead_proxy, run_hotswap, without_settings

pytestmark = pytest.mark.xdist_group("secrets")  # one worker sweeps once for all of these

SECRET = "hunter-2-of-7"
TOKEN = "token-9-of-11"
SECRETS = (SECRET, TOKEN)
PAGES = {
    "MLFLOW": "/api/2.0/mlflow/experiments/search?max_results=1",
    "PREFECT": "/api/admin/version",
    "OPERATOR": "/metrics",
}
DOWN = f"http://ada:{SECRET}@127.0.0.1:1"
WHY = ["--reason", f"as postgresql://bob:{SECRET}@db says, and {TOKEN}"]
ASKING = {"MLFLOW_TRACKING_URI": "doctor", "HOTSWAP_SERVING_ENDPOINTS": "status", "PREFECT_API_URL": ""}
"""a command that asks what is down; in the long form every command asks each"""
EVERY_COMMAND = (
    "train iris",
    "doctor",
    "explain iris 1",
    "rollback iris",
    "status",
    "reconcile",
    "label iris canary 1",
)
WITHOUT_TURNS = {"HOTSWAP_WORKER": "false", "HOTSWAP_RECONCILE_SECONDS": "0"}
"""In the short form the commands alone train and reconcile."""
RECIPE = f"""
from dataclasses import replace
from flows.recipes.iris import RECIPE as iris

def load():
    raise ValueError("no rows at postgresql://bob:{SECRET}@db/x?sslpassword={SECRET}, password={SECRET}, {TOKEN}")

RECIPE = replace(iris, name="leaky", load=load)
"""


@dataclass(frozen=True)
class Swept:
    """What `hotswap up` and the commands beside it have printed and written."""

    directory: Path
    up: str
    commands: str
    arguments: str
    """of every process of `hotswap up`"""
    codes: tuple[int | None, ...]
    pages: dict[str, list[int]]
    """how each answers without a login, with another one, with that of the settings, and by another name"""

    @property
    def kept(self) -> Iterator[tuple[Path, bytes]]:
        for path in sorted(self.directory.rglob("*")):
            if path.is_file() and path.parts[len(self.directory.parts)] in ("home", "models"):
                yield path, path.read_bytes()


def commands(models: Path, soak: bool) -> Iterator[tuple[dict[str, str], list[str]]]:
    """The life of a model, and then each of the others down on its own."""
    yield {}, ["train", "iris", *WHY]
    yield {}, ["train", "leaky_recipe:RECIPE"]
    if soak:
        yield {}, ["train", "iris", "--epochs", "1", "--min-accuracy", "1", "--verbose", *WHY]
    other = models.parent / "other"
    shutil.copytree(models / "iris" / "1", other)
    (other / "assets.extra" / "note").write_text("other files than those of version 1")
    yield {}, ["promote", "iris", "--saved-model", str(other), *WHY]
    yield {}, ["label", "iris", "canary", "1", *WHY]
    yield {}, ["label", "iris", "canary", "--remove", *WHY]
    for command in (["status"], ["history", "iris"], ["explain", "iris", "2"], ["reconcile"], ["doctor"]):
        yield {}, command
    yield {}, ["rollback", "iris", *WHY]
    yield {}, ["restore", "iris", "2", *WHY]
    yield {}, ["retire", "iris", "2", *WHY]
    yield {}, ["predict", "iris", "5.1,3.5,1.4,0.2"]
    for name, asking in ASKING.items():
        down = {name: f"{DOWN} 127.0.0.1:1" if name == "HOTSWAP_SERVING_ENDPOINTS" else DOWN}
        for words in EVERY_COMMAND if soak else filter(None, [asking]):
            yield down, words.split()
    yield {}, ["remove", "iris", "--force", WHY[1]]
    yield {}, ["history", "iris", "--json"]


def run_beside(environment: dict[str, str], directory: Path, arguments: list[str]) -> tuple[list[str], str, int | None]:
    """A command, all that it printed, and its exit code."""
    process = Piped(environment, run_with_recipes, directory, arguments, directory=directory)
    text = "".join(process.communicate())
    return arguments[:2], text, process.returncode


def run_with_recipes(directory: Path, arguments: list[str]) -> None:
    """``hotswap …``, which finds the recipes of a directory."""
    sys.path.append(str(directory))
    run_hotswap(arguments)


def with_secrets(directory: Path) -> dict[str, str]:
    """An environment that has a secret wherever a setting can have one, and a proxy that leads nowhere."""
    return {
        **behind_a_dead_proxy(without_settings()),
        **stack_ports(),
        "PYTHONPATH": f"{Path.cwd()}:{directory}",
        "HOTSWAP_HOME": str(directory / "home"),
        "HOTSWAP_MODELS_REPO": str(directory / "models"),
        "HOTSWAP_TOKEN_FILE": str(directory / "token"),
        "HOTSWAP_NOTIFY": f"json://ada:{SECRET}@127.0.0.1:1/{TOKEN}",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_TRACKING_PASSWORD": SECRET,
        "HOTSWAP_UI_USER": "ada",
        "HOTSWAP_UI_PASSWORD_FILE": str(directory / "password"),
    }


@pytest.fixture(scope="module")
def swept(
    furnish: Callable[[Path], None], forked_sandbox: Path, tmp_path_factory: pytest.TempPathFactory, soak: bool
) -> Swept:
    """Everything up, with secrets in every setting that can hold one, and every command run beside it."""
    directory = tmp_path_factory.mktemp("secrets")
    furnish(directory / "home")
    (directory / "token").write_text(TOKEN)
    (directory / "password").write_text(f"{SECRET}\n")
    (directory / "leaky_recipe.py").write_text(RECIPE)
    environment = {**with_secrets(directory), "HOTSWAP_SANDBOX_SERVER": str(forked_sandbox)}
    backend = f"sqlite:///file:{directory}/home/mlflow.db?uri=true&password={SECRET}"
    up = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "up", "--json"],
        env={**environment, "MLFLOW_TRACKING_URI": backend, **({} if soak else WITHOUT_TURNS)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=directory,
    )
    assert up.stdout is not None
    first = up.stdout.readline()
    assert first, up.communicate()[1]
    processes = psutil.Process(up.pid).children(recursive=True)
    arguments = "\n".join(" ".join(each.cmdline()) for each in processes)
    beside = {
        **environment,
        "MLFLOW_TRACKING_URI": f"http://ada:{SECRET}@127.0.0.1:{environment['HOTSWAP_MLFLOW_PORT']}",
    }
    pages = {
        name: statuses(f"http://127.0.0.1:{environment[f'HOTSWAP_{name}_PORT']}{path}") for name, path in PAGES.items()
    }
    done = [run_beside({**beside, **down}, directory, words) for down, words in commands(directory / "models", soak)]
    up.send_signal(signal.SIGTERM)
    rest, errors = up.communicate(timeout=60)
    printed = "".join(f"## {' '.join(words)}\n{text}" for words, text, _ in done)
    return Swept(directory, first + rest + errors, printed, arguments, tuple(code for *_, code in done), pages)


def statuses(url: str) -> list[int]:
    """The answers to a stranger, to a wrong password, to the right one, and to a browser led here by a foreign name."""
    asking = requests.Session()
    asking.mount("http://", HTTPAdapter(max_retries=Retry(connect=10, backoff_factor=0.1)))  # the operator starts last
    return [
        asking.get(url, auth=auth, headers=headers, timeout=30).status_code
        for auth, headers in ((None, {}), (("ada", TOKEN), {}), (("ada", SECRET), {}), (None, {"Host": "evil.example"}))
    ]


def test_the_pages_want_the_login(swept: Swept) -> None:
    """MLflow, Prefect and the operator answer who has it, which the commands of ours have by the same settings."""
    assert {name: found[:3] for name, found in swept.pages.items()} == {name: [401, 401, 200] for name in PAGES}
    assert swept.pages["MLFLOW"][3] == 403


def test_the_life_of_a_model_went_as_it_should(swept: Swept, soak: bool) -> None:
    """Each command did what it does without secrets, and what was down was missed."""
    rejected = [3] if soak else []
    life = (0, 1, *rejected, *[0] * 12)
    assert swept.codes[: len(life)] == life, swept.commands
    assert swept.codes[len(life)] == 1
    assert swept.codes[-2:] == (0, 0)


def test_no_output_shows_a_secret(swept: Swept) -> None:
    """Neither those of the commands nor that of `hotswap up`, nor the arguments of its processes."""
    for text in (swept.commands, swept.up, swept.arguments):
        assert text
        assert not [line for line in text.splitlines() if any(secret in line for secret in SECRETS)]


def test_nothing_keeps_a_secret(swept: Swept) -> None:
    """Logs, the traceback, the databases of MLflow and Prefect, artifacts, journal, stamps and models.config."""
    names = {path.name for path, _ in swept.kept}
    assert names >= {"mlflow.db", "prefect.db", "mlflow.log", "prefect.log", "error.log", "iris.jsonl", "gate.md"}
    leaks = {
        str(path.relative_to(swept.directory)): content[max(0, at - 80) : at + 30]
        for path, content in swept.kept
        for secret in SECRETS
        if (at := content.find(secret.encode())) >= 0
    }
    assert leaks == {}
