"""What tests of every room share: a small SavedModel, and servers that run."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest

from serving.runtime.tensorflow_import import set_environment
from serving.settings import ServerSettings

set_environment()


class TinyModel(Protocol):
    """Puts a version of the tiny model somewhere, by one rename, and returns its directory."""

    def __call__(self, base_path: Path, version: int, name: str | None = None) -> Path: ...


class ModelServer(Protocol):
    """Starts a server in this process on ports of the kernel's choice; it is stopped when the test ends."""

    def __call__(self, **settings: Any) -> Any: ...


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="the long form of the tests that have one")


@pytest.fixture(scope="session")
def soak(request: pytest.FixtureRequest) -> bool:
    """Is this the long form, for `make soak`?"""
    return bool(request.config.getoption("--soak"))


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
    deadline = time.monotonic() + 30
    while None in [server.data_plane.servable(model, version) for version in versions]:
        assert time.monotonic() < deadline
        time.sleep(0.01)


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


@pytest.fixture
def model_server() -> Iterator[ModelServer]:
    """A factory of running servers; its keyword arguments are those of `ServerSettings`."""
    from serving.server import Server

    with ExitStack() as running:

        def start(**settings: Any) -> Server:
            return running.enter_context(Server(ServerSettings(**settings)))

        yield start
