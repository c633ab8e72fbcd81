"""One client's rows never change another client's answer, and what merges is reported."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients.client import PredictClient
from clients.grpc_client import GrpcClient
from clients.rest_client import RestClient
from serving.flags import UsageError, parse_flags, settings_of
from tests.conftest import ModelServer, TinyModel

CLIENTS = 16
ROUNDS = 20


@pytest.fixture(scope="module")
def coupled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base path of a model whose signatures couple the rows of a batch, each in its own way; `apart` does not."""
    import tensorflow as tf

    rows = tf.TensorSpec([None, 2], tf.float32, name="x")
    functions: dict[str, Callable[[Any], Any]] = {
        "serving_default": lambda x: tf.nn.softmax(tf.reduce_sum(x, axis=1, keepdims=True), axis=0),
        "condition": lambda x: tf.cond(tf.reduce_sum(x) > 4.0, lambda: x, lambda: -x),
        "scan": lambda x: tf.scan(lambda state, row: state + row, x),
        "unique": lambda x: x + tf.cast(tf.size(tf.unique(tf.reshape(x, [-1]))[0]), tf.float32),
        "mean": lambda x: x - tf.reduce_mean(x, axis=0),
        "size": lambda x: x / tf.cast(tf.shape(x)[0], tf.float32),
        "apart": lambda x: 2.0 * x + 1.0,
    }
    module = tf.Module()
    signatures = {
        name: tf.function(lambda x, function=function: {"y": function(x)}, input_signature=[rows])
        for name, function in functions.items()
    }
    base_path = tmp_path_factory.mktemp("coupled")
    tf.saved_model.save(module, str(base_path / "1"), signatures=signatures)
    return base_path


def only(outputs: Mapping[str, Any]) -> Any:
    (output,) = outputs.values()
    return output


def asked_by_many(client_of: Callable[[], PredictClient], signature: str) -> int:
    """How many answers differ from the one that a client gets who is alone."""
    inputs = [np.array([[number, 1.0]], np.float32) for number in range(CLIENTS)]
    with client_of() as client:
        alone = [client.predict("coupled", each, signature_name=signature).outputs for each in inputs]

    def ask(number: int) -> int:
        with client_of() as client:
            answers = [client.predict("coupled", inputs[number], signature_name=signature) for _ in range(ROUNDS)]
        return sum(not np.allclose(*map(only, (each.outputs, alone[number]))) for each in answers)

    with ThreadPoolExecutor(CLIENTS) as pool:
        return sum(pool.map(ask, range(CLIENTS)))


@pytest.mark.parametrize("signature", ["serving_default", "condition", "scan", "unique", "mean", "size", "apart"])
@pytest.mark.parametrize("protocol", ["gRPC", "REST"])
def test_sixteen_clients_get_what_each_would_get_alone(
    protocol: str, signature: str, coupled: Path, model_server: ModelServer
) -> None:
    """However many ask at once, and whatever the graph does with a batch."""
    server = model_server(model_name="coupled", model_base_path=str(coupled))

    def client_of() -> PredictClient:
        if protocol == "gRPC":
            return GrpcClient(f"127.0.0.1:{server.grpc_port}")
        return RestClient(f"http://127.0.0.1:{server.rest_port}")

    assert asked_by_many(client_of, signature) == 0


def page(server: Any, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.rest_port}{path}", timeout=10) as answer:
        return str(answer.read().decode())


def signatures(server: Any) -> dict[str, Any]:
    found = json.loads(page(server, "/hotswap/models"))["models"][0]["signatures"]
    assert isinstance(found, dict)
    return found


def test_it_is_reported_what_merges_and_what_stands_in_the_way(
    coupled: Path, model_server: ModelServer, tmp_path: Path
) -> None:
    """By signature: on the page of models, and as a metric."""
    config = tmp_path / "monitoring.config"
    config.write_text("prometheus_config { enable: true }")
    server = model_server(model_name="coupled", model_base_path=str(coupled), monitoring_config_file=config)
    found = signatures(server)
    assert found["apart"] == {"merges": True, "node": None, "operation": None, "reason": None}
    assert found["mean"]["operation"] == "Mean"
    assert found["mean"]["reason"] == f"{found['mean']['node']} (Mean) is not proven to keep the rows of a batch apart."
    metrics = page(server, "/monitoring/prometheus/metrics")
    assert re.search(r'signature_merges_requests{.*signature_name="apart",operation=""} 1', metrics)
    assert re.search(r'signature_merges_requests{.*signature_name="mean",operation="Mean"} 0', metrics)
    assert ":tensorflow:serving:signature_merges_requests gauge" in metrics


def test_merging_that_is_turned_off_is_reported(
    tiny_model: TinyModel, model_server: ModelServer, tmp_path: Path
) -> None:
    """What could be merged is not, and the page says why."""
    tiny_model(tmp_path, 1)
    server = model_server(model_name="tiny", model_base_path=str(tmp_path), merge_requests="never")
    found = signatures(server)["serving_default"]
    assert (found["merges"], found["reason"]) == (False, "The server was started with --merge_requests=never.")


@pytest.mark.parametrize(
    ("text", "setting"), [("proven", "proven"), ("never", "never"), ("true", "proven"), ("False", "never")]
)
def test_the_flag_has_two_words(text: str, setting: str) -> None:
    """It was a boolean once: these stay what they were, where that is safe."""
    assert settings_of(parse_flags([f"--merge_requests={text}"])).merge_requests == setting


@pytest.mark.parametrize("text", ["always", "force", "1", ""])
def test_nothing_forces_merging(text: str) -> None:
    """Another word is refused with the two that there are."""
    with pytest.raises(UsageError, match=f'"{text}" for flag merge_requests: it is proven or never'):
        parse_flags([f"--merge_requests={text}"])
