"""Who answers a request with neither version nor label, on a server with a default label?"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import requests
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    inference_pb2,
    input_pb2,
    regression_pb2,
)

from clients.grpc_client import GrpcClient
from clients.rest_client import RestClient
from serving.protocol.errors import ServableNotFound
from serving.repository.model_config import ModelEntry, render
from serving.repository.version_policy import All
from tests.conformance.cases import MODELS
from tests.conftest import ModelServer, TinyModel, wait_available
from tests.waiting import until

ROWS = np.ones((1, 4), np.float32)
EXAMPLE = {"x": [1.5, 2.5]}
ASKED_AGAIN = 3
"""the first requests of a kind take another way than those after them"""


def entry(root: Path, name: str, **labels: int) -> ModelEntry:
    """All versions of a model below `root`."""
    return ModelEntry(name, str(root / name), All(), labels)


def serve(model_server: ModelServer, root: Path, *entries: ModelEntry, **settings: Any) -> Any:
    """A server of these models, which begins with their labels."""
    config = root / "models.config"
    config.write_text(render(list(entries)))
    wanted = {"default_version_label": "stable", "allow_version_labels_for_unavailable_models": True}
    return model_server(model_config_file=config, **{**wanted, "max_num_load_retries": 0, **settings})


def reload(server: Any, *entries: ModelEntry) -> None:
    with GrpcClient(f"127.0.0.1:{server.grpc_port}") as client:
        client.reload(entries)


def answered_by(server: Any, model: str = "tiny") -> set[int | None]:
    """The versions that answer predicts with neither version nor label."""
    url = f"http://127.0.0.1:{server.rest_port}"
    with RestClient(url) as rest, GrpcClient(f"127.0.0.1:{server.grpc_port}") as client:
        return {each.predict(model, ROWS).version for each in (rest, client) for _ in range(ASKED_AGAIN)}


@pytest.fixture
def versions(tiny_model: TinyModel, tmp_path: Path) -> Path:
    """Versions 1, 2 and 3 of ``tiny`` and of ``examples``, which classifies and regresses."""
    for version in (1, 2, 3):
        tiny_model(tmp_path / "tiny", version)
        shutil.copytree(MODELS / "classify_regress" / "1", tmp_path / "examples" / str(version))
    return tmp_path


@pytest.fixture(params=[True, False], ids=["native", "grpcio"])
def server(request: pytest.FixtureRequest, versions: Path, model_server: ModelServer) -> Any:
    """A server of both models, whose label ``stable`` is at version 1."""
    entries = [entry(versions, name, stable=1) for name in ("tiny", "examples")]
    server = serve(model_server, versions, *entries, native_grpc=request.param)
    for model in ("tiny", "examples"):
        wait_available(server, model, 1, 2, 3)
    return server


def rest_answers(server: Any) -> Iterator[int]:
    """The version that each method of REST is answered by."""
    url = f"http://127.0.0.1:{server.rest_port}/v1/models"
    asked = {
        "tiny:predict": {"instances": ROWS.tolist()},
        "examples:classify": {"examples": [EXAMPLE]},
        "examples:regress": {"signature_name": "regress", "examples": [EXAMPLE]},
    }
    for target, body in asked.items():
        for _ in range(ASKED_AGAIN):
            yield int(requests.post(f"{url}/{target}", json=body, timeout=10).headers["model-version"])
    yield int(requests.get(f"{url}/tiny/metadata", timeout=10).json()["model_spec"]["version"])


def grpc_answers(server: Any) -> Iterator[int]:
    """The version that each method of gRPC is answered by."""
    source = input_pb2.Input()
    source.example_list.examples.add().features.feature["x"].float_list.value.extend(EXAMPLE["x"])
    classify = classification_pb2.ClassificationRequest(input=source)
    classify.model_spec.name = "examples"
    regress = regression_pb2.RegressionRequest(input=source)
    regress.model_spec.name, regress.model_spec.signature_name = "examples", "regress"
    both = inference_pb2.MultiInferenceRequest(input=source)
    task = both.tasks.add(method_name="tensorflow/serving/classify")
    task.model_spec.name = "examples"
    metadata = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    metadata.model_spec.name = "tiny"
    asked = {
        "Classify": (classify, classification_pb2.ClassificationResponse),
        "Regress": (regress, regression_pb2.RegressionResponse),
        "MultiInference": (both, inference_pb2.MultiInferenceResponse),
        "GetModelMetadata": (metadata, get_model_metadata_pb2.GetModelMetadataResponse),
    }
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        for method, (request, kind) in asked.items():
            call: Any = channel.unary_unary(f"/tensorflow.serving.PredictionService/{method}")
            answer: Any = kind.FromString(call(request.SerializeToString(), timeout=10))
            yield (answer.results[0] if method == "MultiInference" else answer).model_spec.version.value
    with GrpcClient(f"127.0.0.1:{server.grpc_port}") as client:
        for _ in range(ASKED_AGAIN):
            version = client.predict("tiny", ROWS).version
            assert version is not None
            yield version


def test_requests_with_neither_version_nor_label_follow_the_label(server: Any, versions: Path) -> None:
    """Every method of both protocols, at once when the label moves, and the highest when it is taken away."""
    for labels, version in [({"stable": 1}, 1), ({"stable": 2}, 2), ({}, 3), ({"canary": 1}, 3), ({"stable": 1}, 1)]:
        reload(server, *(entry(versions, name, **labels) for name in ("tiny", "examples")))
        assert set(rest_answers(server)) == {version}
        assert set(grpc_answers(server)) == {version}


def test_a_request_that_names_a_version_or_a_label_gets_it(server: Any) -> None:
    """The default is for the others only, and the status lists every version."""
    with RestClient(f"http://127.0.0.1:{server.rest_port}") as rest, GrpcClient(f"127.0.0.1:{server.grpc_port}") as rpc:
        for client in (rest, rpc):
            assert client.predict("tiny", ROWS, version=3).version == 3
            assert client.predict("tiny", ROWS, label="stable").version == 1
            assert [status.version for status in client.status("tiny")] == [3, 2, 1]


def test_without_the_flag_the_highest_version_answers(versions: Path, model_server: ModelServer) -> None:
    """As in TensorFlow Serving."""
    server = serve(model_server, versions, entry(versions, "tiny", stable=1), default_version_label=None)
    wait_available(server, "tiny", 1, 2, 3)
    assert answered_by(server) == {3}
    assert (
        requests.get(f"http://127.0.0.1:{server.rest_port}/hotswap/models", timeout=10).json()["default_version_label"]
        is None
    )


def test_a_label_whose_version_is_gone_gives_way_to_the_highest(server: Any, versions: Path) -> None:
    """And takes over again once its version is back; no request in between fails."""
    version = versions / "tiny" / "1"
    version.rename(versions / "away")
    until(lambda: answered_by(server) == {3})
    (versions / "away").rename(version)
    until(lambda: answered_by(server) == {1})


@pytest.fixture
def slow_first(versions: Path) -> Path:
    """Version 1 of ``tiny`` is loaded last: a warm-up file makes it run many times first."""
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name = "tiny"
    request.inputs["input"].CopyFrom(tf.make_tensor_proto(np.ones((1000, 4), np.float32)))
    log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
    extra = versions / "tiny" / "1" / "assets.extra"
    extra.mkdir()
    with tf.io.TFRecordWriter(str(extra / "tf_serving_warmup_requests")) as writer:
        for _ in range(100):
            writer.write(log.SerializeToString())
    return versions


def first_answers(server: Any, ask: Callable[[], set[int | None]]) -> list[set[int | None]]:
    """What is answered until all versions are there."""
    found = [ask()]
    while None in [server.data_plane.models.servable("tiny", version) for version in (1, 2, 3)]:
        found.append(ask())
    return [*found, ask()]


def test_a_server_opens_its_ports_once_the_labelled_version_is_there(
    slow_first: Path, model_server: ModelServer
) -> None:
    """Whatever was loaded sooner is answered to nobody who did not ask for it."""
    server = serve(model_server, slow_first, entry(slow_first, "tiny", stable=1), num_request_iterations_for_warmup=20)
    assert set().union(*first_answers(server, lambda: answered_by(server))) == {1}


def test_a_model_that_comes_by_a_reload_waits_for_its_labelled_version(
    slow_first: Path, model_server: ModelServer
) -> None:
    """Until then it is not found, as before the reload."""
    server = serve(model_server, slow_first, num_request_iterations_for_warmup=20)

    def ask() -> set[int | None]:
        try:
            return answered_by(server)
        except ServableNotFound:
            return set()

    reloading = threading.Thread(target=reload, args=(server, entry(slow_first, "tiny", stable=1)))
    reloading.start()
    assert set().union(*first_answers(server, ask)) == {1}
    reloading.join()


@pytest.mark.parametrize("fault", ["broken", "missing"])
def test_a_server_starts_without_the_labelled_version_when_it_cannot_be_had(
    versions: Path, model_server: ModelServer, fault: str
) -> None:
    """The highest answers then, as it would without a label."""
    if fault == "broken":
        (versions / "tiny" / "1" / "saved_model.pb").write_bytes(b"broken")
    else:
        shutil.rmtree(versions / "tiny" / "1")
    server = serve(model_server, versions, entry(versions, "tiny", stable=1))
    wait_available(server, "tiny", 2, 3)
    assert answered_by(server) == {3}


def test_a_server_starts_with_the_labelled_version_although_a_higher_one_is_broken(
    versions: Path, model_server: ModelServer
) -> None:
    """A restart does not end what was live; without the flag it fails as TensorFlow Serving does."""
    (versions / "tiny" / "3" / "saved_model.pb").write_bytes(b"broken")
    assert answered_by(serve(model_server, versions, entry(versions, "tiny", stable=2))) == {2}
