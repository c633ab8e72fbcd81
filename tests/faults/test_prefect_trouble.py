"""A Prefect that wants to know who asks, and one that calls running what has gone."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import uvicorn
from prefect.server.api.server import create_app

from flows.endpoints.servers import Servers
from flows.orchestration.prefect_access import PrefectUnavailable
from flows.orchestration.prefect_server import TemporaryPrefect
from flows.promotion.rollback import rollback
from flows.reconcile import reconcile
from flows.reconciliation.repair import repair
from flows.roll_back import roll_back
from flows.settings import Settings
from flows.train_and_promote import train_and_promote
from tests import processes
from tests.faults.points import Point, at, before
from tests.faults.proxy import Proxy, cut, proxied
from tests.faults.restartable import Restartable, lead_group
from tests.ports import free_ports
from tests.processes import Piped

pytestmark = pytest.mark.xdist_group("prefect-trouble")  # one worker starts the server

WHO = ("ada", "hunter-2-of-7")


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory, furnish: Callable[[Path], None]) -> Iterator[Restartable]:
    """A Prefect server that lets in who says `WHO`."""
    directory = tmp_path_factory.mktemp("home")
    furnish(directory)
    (port,) = free_ports(1)
    variables = {
        **os.environ,
        "PREFECT_HOME": str(directory / "prefect"),
        "PREFECT_SERVER_API_AUTH_STRING": ":".join(WHO),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_UI_ENABLED": "0",
    }
    log = directory / "log"
    begin = partial(processes.start_with, variables, serve_prefect, port, log)
    server = Restartable(begin, f"http://127.0.0.1:{port}", "/api/health", log)
    yield server
    server.kill()


def serve_prefect(port: int, log: Path) -> None:
    """What ``prefect server start`` does, in this process."""
    lead_group(log)
    uvicorn.run(create_app(), port=port, log_level="warning")


@pytest.fixture
def environment(prefect: Restartable, tmp_path: Path) -> dict[str, str]:
    return {
        **processes.without_settings(),
        "HOTSWAP_HOME": str(tmp_path / "home"),
        "HOTSWAP_MODELS_REPO": str(tmp_path / "models"),
        "HOTSWAP_REST_PORT": "1",
        "HOTSWAP_GRPC_PORT": "2",
        "PREFECT_API_URL": f"{prefect.url}/api",
    }


@pytest.fixture
def way(prefect: Restartable) -> Iterator[Proxy]:
    """A way to the Prefect server that can be cut."""
    with proxied(int(prefect.url.rpartition(":")[2])) as proxy:
        yield proxy


def hotswap(environment: dict[str, str], *arguments: str) -> tuple[int, str, str]:
    done = processes.hotswap(environment, *arguments)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    "credentials",
    [
        pytest.param({}, marks=pytest.mark.soak, id="none"),
        pytest.param({"PREFECT_API_AUTH_STRING": "ada:something-else"}, id="others"),
    ],
)
def test_a_prefect_that_refuses_us_is_reported_before_anything_is_trained(
    credentials: dict[str, str], environment: dict[str, str]
) -> None:
    """One sentence names the variable, and no secret."""
    code, out, errors = hotswap({**environment, **credentials}, "train", "iris")
    assert (code, out) == (1, "")
    assert "does not accept the credentials, status 401: set HOTSWAP_UI_USER" in errors.splitlines()[-1]
    assert "PREFECT_API_AUTH_STRING" in errors.splitlines()[-1]
    assert "training epoch" not in errors
    assert "something-else" not in errors


def test_a_killed_training_that_prefect_calls_running_is_named_and_ended(
    environment: dict[str, str], prefect: Restartable, way: Proxy, tmp_path: Path
) -> None:
    """`doctor` names its flow run, `reconcile` makes it a crashed one; a flow run that is not ours is left alone."""
    api_url = f"http://127.0.0.1:{way.port}/api"
    environment = {**environment, "PREFECT_API_AUTH_STRING": ":".join(WHO), "PREFECT_API_URL": api_url}
    with httpx.Client(base_url=f"{prefect.url}/api", auth=WHO, trust_env=False) as api:
        flow = api.post("/flows/", json={"name": "train-and-promote"}).json()["id"]
        running: dict[str, Any] = {"flow_id": flow, "state": {"type": "RUNNING", "name": "Running"}}
        killed, other = (api.post("/flow_runs/", json=running).json()["id"] for _ in range(2))
        trainings = tmp_path / "home" / "trainings" / "iris"
        trainings.mkdir(parents=True)
        (trainings / killed).touch()

        def state(flow_run: str) -> str:
            return str(api.get(f"/flow_runs/{flow_run}").json()["state"]["type"])

        code, out, _ = hotswap(environment, "doctor")
        assert code == 1
        assert f"flow run {killed} has ended, but its run in MLflow is still open" in " ".join(out.split())
        with cut(way):
            assert hotswap(environment, "reconcile")[0] == 0
        code, out, _ = hotswap(environment, "doctor")
        assert code == 1
        assert f"Prefect shows flow run {killed} as running, but its process has ended" in " ".join(out.split())
        assert "`hotswap reconcile` ends it" in " ".join(out.split())
        assert other not in out
        assert state(killed) == "RUNNING"
        assert hotswap(environment, "reconcile")[0] == 0
        assert (state(killed), state(other)) == ("CRASHED", "RUNNING")
        assert hotswap(environment, "doctor")[:2] == (0, "All is well.\n")
        with cut(way):
            code, out, _ = hotswap(environment, "doctor")
        assert code == 1
        assert f"no Prefect server answers at PREFECT_API_URL={api_url}" in " ".join(out.split())


def test_a_temporary_server_that_ends_while_it_starts_is_started_again(
    tmp_path: Path, furnish: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training does not fail for it; the address stays, and the log keeps what the first one said."""
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    furnish(tmp_path)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    others = psutil.Process().children()
    server = TemporaryPrefect(Settings(home=tmp_path / "home"))
    try:
        _started_beside(others).kill()
        server.wait()
        assert httpx.get(f"{server.api_url}/health").status_code == 200
    finally:
        server.stop()


def test_a_database_of_a_newer_prefect_is_told_with_the_next_step(
    tmp_path: Path, furnish: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training does not begin, and what is in the database stays."""
    furnish(tmp_path / "home")
    database = tmp_path / "home" / "prefect" / "prefect.db"
    with closing(sqlite3.connect(database)) as file, file:
        file.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PREFECT_HOME", str(database.parent))
    server = TemporaryPrefect(Settings(home=tmp_path / "home"))
    with pytest.raises(PrefectUnavailable, match="its database is of a newer release of Prefect: install that release"):
        server.wait()


def _started_beside(others: list[psutil.Process]) -> psutil.Process:
    """The temporary server, which runs its own program a moment after it was forked."""
    deadline = time.monotonic() + 30
    while True:
        for each in psutil.Process().children():
            if each not in others and "flows.orchestration.temporary_prefect" in each.cmdline():
                return each
        assert time.monotonic() < deadline


def run_roll_back() -> None:
    roll_back("tiny")


def run_reconcile() -> None:
    reconcile("tiny")


def run_training() -> None:
    train_and_promote()


FLOWS = (
    (run_roll_back, before(rollback)),
    (run_reconcile, before(repair)),
    (run_training, before(Servers.ask_first)),
)


def test_killed_flow_runs_of_every_kind_are_named_and_ended(
    environment: dict[str, str], prefect: Restartable, tmp_path: Path
) -> None:
    """Also before their first step; those whose processes are there are not named."""
    environment = {**environment, "PREFECT_API_AUTH_STRING": ":".join(WHO)}
    with ExitStack() as stack:
        running = [stack.enter_context(waiting(environment, *flow)) for flow in FLOWS]
        for process in running:
            assert process.stdout.readline() == "there\n"
        assert "whose process has gone" not in " ".join(hotswap(environment, "doctor")[1].split())
        for process in running:
            process.kill()
    flow_runs = [path.name for path in (tmp_path / "home" / "flow_runs").iterdir()]
    assert len(flow_runs) == len(FLOWS)
    told = " ".join(hotswap(environment, "doctor")[1].split())
    for flow_run in flow_runs:
        assert f"Prefect shows flow run {flow_run} as running, but its process has ended" in told
    assert hotswap(environment, "reconcile")[0] == 0
    with httpx.Client(base_url=f"{prefect.url}/api", auth=WHO, trust_env=False) as api:
        states = {api.get(f"/flow_runs/{flow_run}").json()["state"]["type"] for flow_run in flow_runs}
    assert states == {"CRASHED"}
    assert list((tmp_path / "home" / "flow_runs").iterdir()) == []


@contextmanager
def waiting(environment: dict[str, str], flow: Callable[[], None], point: Point) -> Iterator[Piped]:
    """A flow run in a process of its own, which says when it has come to the point, and stays there."""
    process = Piped(environment, wait_at, flow, point)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_at(flow: Callable[[], None], point: Point) -> None:
    def say_and_wait() -> None:
        print("there", flush=True)
        signal.pause()

    with at(point, say_and_wait):
        flow()
