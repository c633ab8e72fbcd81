"""What tests of every room share: a small SavedModel, servers that run, and models with a registry and a server."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from filelock import FileLock

from serving.runtime.tensorflow_import import set_environment
from serving.settings import ServerSettings
from tests import shared_forks, tiers
from tests.waiting import until

if TYPE_CHECKING:
    from tests.pipelines import Pipeline
    from tests.stack import Stack

set_environment()
# More threads of numpy and scikit-learn would wait for one another, busily, on data as small as that of the tests.
os.environ.setdefault("OMP_NUM_THREADS", "1")

AS_UP: Mapping[str, Any] = {
    "allow_version_labels_for_unavailable_models": True,
    "max_num_load_retries": 0,
    "default_version_label": "stable",
    "native_grpc": False,
}
"""The settings of a server as `hotswap up` starts it; its gRPC is grpcio's, which stops at once."""


class TinyModel(Protocol):
    """Puts a version of the tiny model somewhere, by one rename, and returns its directory."""

    def __call__(self, base_path: Path, version: int, name: str | None = None) -> Path: ...


class ModelServer(Protocol):
    """Starts a server in this process on ports of the kernel's choice; it is stopped when the test ends."""

    def __call__(self, **settings: Any) -> Any: ...


def server_settings(**fields: Any) -> ServerSettings:
    """Settings of a server that polls ten times a second, which the flag, of whole seconds, cannot say."""
    return ServerSettings(**{"file_system_poll_wait_seconds": 0.1, **fields})


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="the long form of the tests that have one")


def pytest_configure(config: pytest.Config) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared_forks.join()
    elif config.getoption("numprocesses", None) and not config.getoption("collectonly"):
        from tests.forked_python import forked_python

        shared_forks.share()
        workers = ExitStack()
        config.add_cleanup(workers.close)
        directory = workers.enter_context(TemporaryDirectory())
        program = workers.enter_context(forked_python(Path(directory)))
        config.option.tx = [f"popen//python={program}"] * len(config.option.tx)


def pytest_unconfigure() -> None:
    """End what a failed test has left running: Python would wait for it for ever."""
    for child in multiprocessing.active_children():
        child.kill()


def pytest_report_header() -> list[str]:
    """Which tests are left out for want of a program."""
    missing = [program for program in tiers.PROGRAMS if not tiers.is_there(program)]
    return [f"left out, as not installed here: the tests that need {', '.join(missing)}"] if missing else []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what takes long, and leave out what cannot be run and what is of the long form only."""
    tiers.mark_slow(items)
    left_out = tiers.left_out(items, is_soak=config.getoption("--soak"))
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def pytest_collection() -> None:
    """What the tests import stays: no collection of garbage need look at it, now or later."""
    gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def soak(request: pytest.FixtureRequest) -> bool:
    """Is this the long form, for `make soak`?"""
    return bool(request.config.getoption("--soak"))


@pytest.fixture(autouse=True)
def environment_as_before() -> Iterator[None]:
    """A command that runs in the tests' process sets `os.environ`; the next test must not see it."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    for name, value in before.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


def build_tiny_model(target: Path, version: int) -> None:
    """
    Export a SavedModel whose answers tell its version.

    ``serving_default``: ``input`` float32 [-1, 4] -> ``output`` float32 [-1, 3]; column j of a row is the row's sum
    times 10 ** j plus the version. ``counted`` adds to a variable at each run.
    """
    import tensorflow as tf

    class Tiny(tf.Module):  # type: ignore[misc]  # TensorFlow ships no types
        def __init__(self) -> None:
            super().__init__()
            self.version = tf.Variable(float(version))
            self.runs = tf.Variable(0.0)

        @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="input")])  # type: ignore[untyped-decorator]
        def predict(self, input: Any) -> dict[str, Any]:
            total = tf.reduce_sum(input, axis=1, keepdims=True)
            return {"output": total * tf.constant([[1.0, 10.0, 100.0]]) + self.version}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])  # type: ignore[untyped-decorator]
        def count(self, x: Any) -> dict[str, Any]:
            return {"runs": x * 0.0 + self.runs.assign_add(1.0)}

    module = Tiny()
    signatures = {"serving_default": module.predict, "counted": module.count}
    tf.saved_model.save(module, str(target), signatures=signatures)


def wait_available(server: Any, model: str, *versions: int) -> None:
    """Wait until all these versions answer: the ports open as soon as one of them does."""
    until(lambda: None not in [server.data_plane.models.servable(model, version) for version in versions])


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """Versions of one small SavedModel, each built once per session."""
    built = tmp_path_factory.mktemp("tiny_models")
    staging = tmp_path_factory.mktemp("tiny_staging")

    def put(base_path: Path, version: int, name: str | None = None) -> Path:
        source = built / str(version)
        if not source.exists():
            build_tiny_model(source, version)
        staged = staging / str(len(list(staging.iterdir())))
        shutil.copytree(source, staged / "model")
        target = base_path / (name or str(version))
        base_path.mkdir(parents=True, exist_ok=True)
        return (staged / "model").rename(target)

    return put


@contextmanager
def model_servers() -> Iterator[ModelServer]:
    """A factory of servers that run during the block; its keyword arguments are those of `ServerSettings`."""
    from serving.server import Server

    with ExitStack() as running:

        def start(**settings: Any) -> Server:
            return running.enter_context(Server(server_settings(**settings)))

        yield start


@pytest.fixture
def model_server() -> Iterator[ModelServer]:
    """A factory of running servers."""
    with model_servers() as start:
        yield start


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """A command that runs in the tests' process sets the logs up for itself."""
    loggers = [logging.getLogger(name) for name in (None, "flows", "serving", "clients")]
    before = [(logger.level, [*logger.handlers]) for logger in loggers]
    yield
    for logger, (level, handlers) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.handlers = handlers


@pytest.fixture(scope="session")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the databases of MLflow and Prefect are kept as these made them at their first start, in seconds."""
    return tmp_path_factory.mktemp("databases")


def _of_all_workers(tmp_path_factory: pytest.TempPathFactory, name: str) -> Path:
    """A directory that all workers of this run have."""
    own = tmp_path_factory.getbasetemp()
    directory = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / name
    directory.mkdir(exist_ok=True)
    return directory


@pytest.fixture(scope="session")
def mlflow_home(databases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with an MLflow database, one for all tests of a worker."""
    from flows.registry.mlflow_registry import Registry

    home = tmp_path_factory.mktemp("home")
    made = _of_all_workers(tmp_path_factory, "mlflow")
    with FileLock(made / "lock"):
        if not (made / "new" / "mlflow.db").exists():
            with at_home(made):
                Registry(made / "artifacts").check()
            copy_database(made, made / "new", "mlflow.db")
    for place in (home, databases):
        shutil.copyfile(made / "new" / "mlflow.db", place / "mlflow.db")
    return home


@pytest.fixture(scope="session")
def prefect_api(databases: Path, python: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Prefect server, one for all tests of all workers that are not about Prefect itself."""
    from tests.shared_prefect import DATABASE, shared_prefect

    directory = _of_all_workers(tmp_path_factory, "shared-prefect")
    with shared_prefect(directory, python) as api_url:
        (databases / DATABASE).parent.mkdir()
        shutil.copyfile(directory / "new" / DATABASE, databases / DATABASE)
        yield api_url


@pytest.fixture(scope="session")
def mlflow_url(mlflow_home: Path) -> Iterator[str]:
    """The address of an MLflow server with the database of `mlflow_home`; who uses it is in its xdist group."""
    from tests.faults.restartable import mlflow_server

    with at_home(mlflow_home):
        server = mlflow_server(mlflow_home)
    yield server.url
    server.kill()


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory, soak: bool) -> Iterator[str]:
    """A program in place of `sys.executable`, whose processes are forked; in the long form that one itself."""
    from tests.forked_python import forked_python

    if soak:
        yield sys.executable
        return
    with forked_python(tmp_path_factory.mktemp("python")) as program:
        yield str(program)


@pytest.fixture(scope="session")
def forked_sandbox(python: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What HOTSWAP_SANDBOX_SERVER is where a training is not about its sandbox, which takes a second to start."""
    program = tmp_path_factory.mktemp("sandbox") / "server"
    program.write_text(f'#!/bin/sh\nexec {python} -m serving "$@"\n')
    program.chmod(0o755)
    return program


@pytest.fixture(scope="session")
def furnish(databases: Path, mlflow_home: Path, prefect_api: str) -> Callable[[Path], None]:
    """Puts empty databases of MLflow and Prefect into a new home, so that nobody has to wait for them."""

    def put(home: Path) -> None:
        shutil.copytree(databases, home, dirs_exist_ok=True)

    return put


@pytest.fixture(scope="session")
def shared_stack(
    furnish: Callable[[Path], None], python: str, forked_sandbox: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """`hotswap up` with everything, for the tests of the xdist group ``stack``; use `stack`."""
    from tests.sinks import listening
    from tests.stack import Stack

    directory = tmp_path_factory.mktemp("stack")
    furnish(directory / ".hotswap")
    made = Stack(directory, python, forked_sandbox)
    with listening(made.told):
        try:
            made.start()
            yield made
        finally:
            made.end()


@pytest.fixture(scope="module")
def stack(shared_stack: Stack) -> Stack:
    """The same, started anew if a test of another module has ended it."""
    if shared_stack.has_ended:
        shared_stack.start()
    return shared_stack


@contextmanager
def at_home(home: Path) -> Iterator[None]:
    """During the block the environment says that MLflow and Prefect keep what they have in `home`."""
    from flows.settings import Settings, apply_environment

    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "PREFECT_", "HOTSWAP_"))]:
        del os.environ[name]
    apply_environment(Settings(home=home, models_repo=home / "unused"))
    yield
    os.environ.clear()
    os.environ.update(before)


def copy_database(home: Path, target: Path, name: str) -> None:
    """Copy a database of SQLite, which may be in use."""
    (target / name).parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(home / name)) as source, closing(sqlite3.connect(target / name)) as copy:
        source.backup(copy)


@pytest.fixture
def in_mlflow_home(mlflow_home: Path) -> Iterator[Path]:
    """`mlflow_home`, to which the environment points while the test runs."""
    with at_home(mlflow_home):
        yield mlflow_home


def offline_pipeline(home: Path, tiny_model: Any, directory: Path) -> Pipeline:
    """A model of its own name, with nobody listening on the ports of the settings."""
    from flows.registry.mlflow_registry import Registry
    from flows.settings import Settings
    from tests.pipelines import NUMBERS, Pipeline

    settings = Settings(home=home, models_repo=directory / "models", rest_port=1, grpc_port=2)
    return Pipeline(settings, Registry(home / "artifacts"), f"tiny{os.getpid()}_{next(NUMBERS)}", tiny_model, directory)


def put_online(offline: Pipeline, model_server: ModelServer) -> Pipeline:
    """Give a pipeline a running server, as that of ``hotswap up``, which begins without any model."""
    config = offline.directory / "models.config"
    config.write_text("model_config_list {}")
    server = model_server(
        model_config_file=config,
        **AS_UP,
    )
    offline.settings = offline.settings.model_copy(
        update={"rest_port": server.rest_port, "grpc_port": server.grpc_port, "server_timeout_seconds": 10.0}
    )
    return offline


@pytest.fixture
def offline(in_mlflow_home: Path, tiny_model: Any, tmp_path: Path) -> Pipeline:
    """A model of its own name, with nobody listening on the ports of the settings."""
    return offline_pipeline(in_mlflow_home, tiny_model, tmp_path)


@pytest.fixture
def replicas(offline: Pipeline, model_server: Any, tmp_path: Path) -> tuple[Pipeline, list[Any]]:
    """
    The same with two running servers, both in `HOTSWAP_SERVING_ENDPOINTS`; they begin without any model.

    Their gRPC is grpcio's, as that of `pipeline`: it stops at once, where pygrpc-native waits for late calls.
    """
    from tests.pipelines import with_endpoints

    config = tmp_path / "models.config"
    config.write_text("model_config_list {}")
    servers = [
        model_server(
            model_config_file=config,
            allow_version_labels_for_unavailable_models=True,
            max_num_load_retries=0,
            native_grpc=False,
        )
        for _ in range(2)
    ]
    offline.settings = with_endpoints(offline.settings, *((each.rest_port, each.grpc_port) for each in servers))
    return offline, servers


@pytest.fixture
def pipeline(offline: Pipeline, model_server: ModelServer) -> Pipeline:
    """The same with a running server."""
    return put_online(offline, model_server)
