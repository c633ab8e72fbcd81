"""One server with two models, and clients of both protocols that ask it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from clients.client import PredictClient
from clients.grpc_client import GrpcClient
from clients.rest_client import RestClient
from serving.repository.model_config import ModelEntry, render
from serving.repository.version_policy import All
from tests.conftest import wait_available

ECHOED = {
    each.__name__: np.dtype(each)
    for each in (
        np.float16,
        np.float32,
        np.float64,
        np.int8,
        np.int16,
        np.int32,
        np.int64,
        np.uint8,
        np.uint16,
        np.uint32,
        np.uint64,
        np.complex64,
        np.complex128,
        ml_dtypes.bfloat16,
    )
} | {"bool": np.dtype(np.bool_), "string": np.dtype(object)}


@dataclass(frozen=True, slots=True)
class Served:
    """The ports of a running server, and the models that it was started with."""

    rest_port: int
    grpc_port: int
    entries: list[ModelEntry]

    def client(self, protocol: str) -> PredictClient:
        if protocol == "REST":
            return RestClient(f"http://127.0.0.1:{self.rest_port}")
        return GrpcClient(f"127.0.0.1:{self.grpc_port}")


def build_echo(target: Path) -> None:
    """
    Export a SavedModel that answers what it is asked.

    One signature for each name in `ECHOED`: ``x`` of that type and any shape -> ``y``. Signature ``pair`` has two
    inputs, ``a`` and ``b`` float32, and two outputs of the same names; ``text_bytes`` is a string that REST sends
    encoded.
    """
    import tensorflow as tf

    def echo(name: str) -> Any:
        @tf.function(input_signature=[tf.TensorSpec(None, getattr(tf, name), name="x")])  # type: ignore[untyped-decorator]
        def run(x: Any) -> dict[str, Any]:
            return {"y": tf.identity(x)}

        return run

    @tf.function(input_signature=[tf.TensorSpec(None, tf.float32, name="a"), tf.TensorSpec(None, tf.float32, name="b")])  # type: ignore[untyped-decorator]
    def pair(a: Any, b: Any) -> dict[str, Any]:
        return {"a": tf.identity(a), "b": tf.identity(b)}

    @tf.function(input_signature=[tf.TensorSpec(None, tf.string, name="x")])  # type: ignore[untyped-decorator]
    def text_bytes(x: Any) -> dict[str, Any]:
        return {"text_bytes": tf.identity(x)}

    module = tf.Module()
    module.functions = {**{name: echo(name) for name in ECHOED}, "pair": pair, "text_bytes": text_bytes}
    tf.saved_model.save(module, str(target), signatures=dict(module.functions))


def build_iris(target: Path) -> None:
    """Export a SavedModel with the signatures of iris; the class of a row is its largest value's place, modulo 3."""
    import tensorflow as tf

    rows = tf.TensorSpec([None, 4], tf.float32, name="input")
    names = tf.constant(["setosa", "versicolor", "virginica"])

    @tf.function(input_signature=[rows])  # type: ignore[untyped-decorator]
    def probabilities(input: Any) -> dict[str, Any]:
        return {"output": tf.one_hot(tf.argmax(input, axis=-1) % 3, 3)}

    @tf.function(input_signature=[rows])  # type: ignore[untyped-decorator]
    def likeliest(input: Any) -> dict[str, Any]:
        class_id = tf.argmax(input, axis=-1) % 3
        return {
            "class_id": class_id,
            "class_name": tf.gather(names, class_id),
            "probability": tf.ones_like(class_id, tf.float32),
        }

    signatures = {"serving_default": probabilities, "classify_class": likeliest}
    tf.saved_model.save(tf.Module(), str(target), signatures=signatures)


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory, tiny_model: Any) -> Iterator[Served]:
    """Model ``tiny`` with versions 1 (label ``stable``) and 2 (label ``canary``), and models ``echo`` and ``iris``."""
    from serving.server import Server
    from serving.settings import ServerSettings

    root = tmp_path_factory.mktemp("models")
    tiny_model(root / "tiny", 1)
    tiny_model(root / "tiny", 2)
    build_echo(root / "echo" / "1")
    build_iris(root / "iris" / "1")
    entries = [
        ModelEntry("tiny", str(root / "tiny"), All(), {"stable": 1, "canary": 2}),
        ModelEntry("echo", str(root / "echo")),
        ModelEntry("iris", str(root / "iris")),
    ]
    config = root / "models.config"
    config.write_text(render([ModelEntry(each.name, each.base_path, each.policy) for each in entries]), "utf-8")
    with Server(ServerSettings(model_config_file=config)) as server:
        wait_available(server, "tiny", 1, 2)
        with GrpcClient(f"127.0.0.1:{server.grpc_port}") as client:
            client.reload(entries)
        yield Served(server.rest_port, server.grpc_port, entries)


@pytest.fixture(scope="session", params=["REST", "gRPC"])
def client(request: pytest.FixtureRequest, served: Served) -> Iterator[PredictClient]:
    """A client of the server; each test runs over both protocols."""
    with served.client(request.param) as client:
        yield client
