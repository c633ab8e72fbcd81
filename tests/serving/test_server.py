"""What the server offers beside TensorFlow Serving's answers."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
import requests
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import classification_pb2, inference_pb2, model_management_pb2, predict_pb2

from serving.protocol import wire_pb2 as wire
from serving.protocol.tensors import decode
from serving.repository.stamp import Stamp
from tests.conftest import wait_available

ROW = {"instances": [[1.0, 2.0, 3.0, 4.0]]}


@pytest.fixture
def server(tiny_model: Any, model_server: Any, tmp_path: Path) -> Any:
    """A server with versions 1 and 2 of the tiny model; version 1 is labelled, version 2 stamped."""
    base_path = tmp_path / "tiny"
    tiny_model(base_path, 1)
    Stamp(digest="d2", run_id="r2").write(tiny_model(base_path, 2))
    config = tmp_path / "models.config"
    config.write_text(
        f"model_config_list {{ config {{ name: 'tiny' base_path: '{base_path}' model_platform: 'tensorflow' "
        "model_version_policy { all {} } version_labels { key: 'stable' value: 1 } } }"
    )
    server = model_server(model_config_file=config, allow_version_labels_for_unavailable_models=True)
    wait_available(server, "tiny", 1, 2)
    return server


@pytest.fixture
def url(server: Any) -> str:
    return f"http://127.0.0.1:{server.rest_port}"


@pytest.mark.parametrize("native_grpc", [True, False])
def test_who_watches_the_health_is_reported_of_the_end_and_delays_it_not(
    tiny_model: Any, model_server: Any, tmp_path: Path, native_grpc: bool
) -> None:
    """A watch would else stay open until the time for requests in flight is over."""
    tiny_model(tmp_path, 1)
    server = model_server(
        model_name="tiny", model_base_path=str(tmp_path), native_grpc=native_grpc, enable_grpc_healthcheck_service=True
    )
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        asked = time.monotonic()
        server.stop()
        assert time.monotonic() - asked < server.settings.drain_seconds / 2
        assert {answer.status for answer in iter_until_end(watch)} <= {health_pb2.HealthCheckResponse.NOT_SERVING}
        assert watch.code() is grpc.StatusCode.UNAVAILABLE


def iter_until_end(watch: Any) -> Iterator[Any]:
    with suppress(grpc.RpcError):
        yield from watch


@pytest.mark.parametrize(("path", "version"), [("", "2"), ("/versions/1", "1"), ("/labels/stable", "1")])
def test_a_rest_answer_tells_its_version(url: str, path: str, version: str) -> None:
    """The header ``model-version`` names the version that answered, however it was asked for."""
    answer = requests.post(f"{url}/v1/models/tiny{path}:predict", json=ROW, timeout=10)
    assert answer.status_code == 200
    assert answer.headers["model-version"] == version


def test_a_grpc_answer_tells_its_version(server: Any) -> None:
    """The trailer ``model-version`` names the version that answered."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "tiny"
    request.model_spec.version_label = "stable"
    tensor = request.inputs["input"]
    tensor.dtype = 1
    tensor.tensor_shape.dim.add(size=1)
    tensor.tensor_shape.dim.add(size=4)
    tensor.float_val.extend([1, 2, 3, 4])
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        predict: Any = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        content, call = predict.with_call(request.SerializeToString(), timeout=10)
    assert dict(call.trailing_metadata())["model-version"] == "1"
    assert predict_pb2.PredictResponse.FromString(content).model_spec.version.value == 1


def call(server: Any, method: str, request: Any) -> bytes:
    """The bytes of an answer over gRPC."""
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        answer: Any = channel.unary_unary(f"/tensorflow.serving.{method}")
        content: bytes = answer(request.SerializeToString(), timeout=10)
    return content


def no_rows(name: str) -> Any:
    """A request to predict with a float32 [0, 4]."""
    shape = wire.TensorShapeProto(dim=[wire.TensorShapeProto.Dim(size=0), wire.TensorShapeProto.Dim(size=4)])
    tensor = wire.TensorProto(dtype=wire.DT_FLOAT, tensor_shape=shape)
    return wire.PredictRequest(model_spec=wire.ModelSpec(name=name), inputs={"input": tensor})


def test_a_request_without_rows_is_answered_where_batching_is_asked_for(
    tiny_model: Any, model_server: Any, tmp_path: Path
) -> None:
    """No rows are a batch like any other: nothing waits for more."""
    tiny_model(tmp_path / "tiny", 1)
    parameters = tmp_path / "batching.txt"
    parameters.write_text("max_batch_size { value: 8 } batch_timeout_micros { value: 10000000 }")
    server = model_server(
        model_name="tiny",
        model_base_path=str(tmp_path / "tiny"),
        enable_batching=True,
        batching_parameters_file=parameters,
    )
    for _ in range(20):  # the first runs take another way than those of a known speed
        response = wire.PredictResponse.FromString(call(server, "PredictionService/Predict", no_rows("tiny")))
        assert decode(response.outputs["output"]).shape == (0, 3)
    answer = requests.post(f"http://127.0.0.1:{server.rest_port}/v1/models/tiny:predict", json=ROW, timeout=10)
    assert answer.json() == {"predictions": [[11.0, 101.0, 1001.0]]}


def test_a_reload_without_a_platform_is_refused_and_wedges_nothing(server: Any, url: str, tmp_path: Path) -> None:
    """The refusal names the model; it goes on answering, and the next reload is applied."""
    request = model_management_pb2.ReloadConfigRequest()
    entry = request.config.model_config_list.config.add(name="tiny", base_path=str(tmp_path / "tiny"))
    entry.model_version_policy.all.SetInParent()
    with pytest.raises(grpc.RpcError) as caught:
        call(server, "ModelService/HandleReloadConfigRequest", request)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "model name is tiny" in str(caught.value.details())
    assert requests.post(f"{url}/v1/models/tiny/labels/stable:predict", json=ROW, timeout=10).status_code == 200
    entry.model_platform = "tensorflow"
    entry.version_labels["stable"] = 2
    call(server, "ModelService/HandleReloadConfigRequest", request)
    answer = requests.post(f"{url}/v1/models/tiny/labels/stable:predict", json=ROW, timeout=10)
    assert answer.headers["model-version"] == "2"


def build_labelling_model(target: Path, labels: list[bytes]) -> None:
    """Export a SavedModel that gives every example these classes."""
    import tensorflow as tf

    module = tf.Module()

    def classify(inputs: Any) -> dict[str, Any]:
        return {
            "classes": tf.repeat(tf.constant([labels]), tf.size(inputs), axis=0),
            "scores": tf.ones([tf.size(inputs), len(labels)]),
        }

    module.classify = tf.function(classify, input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    tf.saved_model.save(module, str(target), signatures=module.classify)


def test_a_label_of_any_bytes_is_sent_as_it_is(model_server: Any, tmp_path: Path) -> None:
    """Classes that are no UTF-8 reach the client unchanged over REST and gRPC, as from TensorFlow Serving."""
    labels = [b"\xff\xfe", "é".encode(), b"plain"]
    build_labelling_model(tmp_path / "labels" / "1", labels)
    server = model_server(model_name="labels", model_base_path=str(tmp_path / "labels"))

    classify = classification_pb2.ClassificationRequest()
    classify.model_spec.name = "labels"
    classify.input.example_list.examples.add()
    answer = wire.ClassificationResponse.FromString(call(server, "PredictionService/Classify", classify))
    assert [each.label for each in answer.result.classifications[0].classes] == labels

    several = inference_pb2.MultiInferenceRequest()
    several.input.example_list.examples.add()
    several.tasks.add(method_name="tensorflow/serving/classify").model_spec.name = "labels"
    answers = wire.MultiInferenceResponse.FromString(call(server, "PredictionService/MultiInference", several))
    result = answers.results[0].classification_result
    assert [each.label for each in result.classifications[0].classes] == labels

    address = f"http://127.0.0.1:{server.rest_port}/v1/models/labels:classify"
    content = requests.post(address, json={"examples": [{}]}, timeout=10).content
    assert all(b'"%b"' % label in content for label in labels)


def test_health_readiness_and_versions_have_pages(server: Any, url: str, tmp_path: Path) -> None:
    """``/healthz`` and ``/readyz`` answer 200, and ``/hotswap/models`` lists every version with label and origin."""
    assert requests.get(f"{url}/healthz", timeout=10).status_code == 200
    assert requests.get(f"{url}/readyz", timeout=10).status_code == 200
    requests.post(f"{url}/v1/models/tiny:predict", json=ROW, timeout=10)
    page = requests.get(f"{url}/hotswap/models", timeout=10).json()
    rows = {row["version"]: row for row in page["models"]}
    assert {name: each["operation"] for name, each in rows[2].pop("signatures").items()} == {
        "serving_default": None,
        "counted": "AssignAddVariableOp",
    }
    assert rows[2] == {
        "model": "tiny",
        "version": 2,
        "state": "AVAILABLE",
        "error": "",
        "labels": [],
        "digest": "d2",
        "run_id": "r2",
        "path": str(tmp_path / "tiny" / "2"),
        "in_repository": True,
        "base_path": str(tmp_path / "tiny"),
        "base_path_in_repository": True,
        "requests": 1,
        "errors": 0,
    }
    assert rows[1]["labels"] == ["stable"]


def test_metrics_tell_versions_apart(tiny_model: Any, model_server: Any, tmp_path: Path) -> None:
    """Requests, errors and latency of each version have lines of their own."""
    tiny_model(tmp_path / "tiny", 3)
    config = tmp_path / "monitoring.config"
    config.write_text("prometheus_config { enable: true }")
    server = model_server(model_name="tiny", model_base_path=str(tmp_path / "tiny"), monitoring_config_file=config)
    url = f"http://127.0.0.1:{server.rest_port}"
    statuses = [
        requests.post(f"{url}/v1/models/tiny:predict", json={"instances": rows}, timeout=10).status_code
        for rows in ([[1.0, 2.0, 3.0, 4.0]], [1.0, 2.0])
    ]
    assert statuses == [200, 400]
    page = requests.get(f"{url}/monitoring/prometheus/metrics", timeout=10).text.splitlines()
    labels = '{model_name="tiny",version="3"}'
    assert f":tensorflow:serving:version_request_count{labels} 2" in page
    assert f":tensorflow:serving:version_error_count{labels} 1" in page
    assert f":tensorflow:serving:version_runtime_latency_count{labels} 1" in page


def test_a_gzipped_body_is_read_and_a_bomb_is_not(url: str) -> None:
    """A compressed request is inflated up to a limit; beyond it the body counts as empty."""
    headers = {"Content-Encoding": "gzip"}
    address = f"{url}/v1/models/tiny:predict"
    small = requests.post(address, data=gzip.compress(json.dumps(ROW).encode()), headers=headers, timeout=10)
    assert small.status_code == 200
    bomb = requests.post(address, data=gzip.compress(b" " * (101 * 2**20)), headers=headers, timeout=30)
    assert (bomb.status_code, bomb.json()["error"]) == (400, "JSON Parse error: The document is empty")


def test_a_large_request_is_answered_like_a_small_one(url: str) -> None:
    """Requests that are decoded in a thread give the same answers."""
    rows = [[float(number), 0.0, 0.0, 0.0] for number in range(20_000)]
    answer = requests.post(f"{url}/v1/models/tiny:predict", json={"instances": rows}, timeout=30)
    assert [row[0] for row in answer.json()["predictions"]] == [number + 2.0 for number in range(20_000)]
