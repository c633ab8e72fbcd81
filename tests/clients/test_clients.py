"""Both clients ask by number and by label, and a mistake has one name over both protocols."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from clients.client import ModelMetadata, PredictClient
from clients.rest_client import RestClient
from serving.protocol.errors import InvalidRequest, ServableNotFound, ServingError
from serving.protocol.signature import TensorInfo
from serving.protocol.version_status import State, VersionStatus
from tests.conftest import ModelServer, TinyModel, wait_available

ROWS = np.array([[1, 2, 3, 4], [0.5, 0, 0, 0]], np.float32)


def tiny_answer(version: int) -> NDArray[np.float32]:
    return np.array([[10, 100, 1000], [0.5, 5, 50]], np.float32) + np.float32(version)


@pytest.mark.parametrize(
    ("address", "version"),
    [({}, 2), ({"version": 1}, 1), ({"version": 2}, 2), ({"label": "stable"}, 1), ({"label": "canary"}, 2)],
)
def test_a_version_is_asked_by_number_by_label_or_by_neither(
    client: PredictClient, address: dict[str, Any], version: int
) -> None:
    """The version asked for answers and is named; without a number or label it is the highest one."""
    prediction = client.predict("tiny", ROWS, **address)
    assert prediction.version == version
    np.testing.assert_array_equal(prediction.outputs["output"], tiny_answer(version), strict=True)


@pytest.mark.parametrize("inputs", [ROWS, ROWS.tolist(), {"input": ROWS}, {"input": ROWS.tolist()}])
def test_inputs_are_arrays_or_lists_bare_or_by_name(client: PredictClient, inputs: Any) -> None:
    """An only input needs no name, and lists become the type that the signature asks for."""
    prediction = client.predict("tiny", inputs, version=1)
    np.testing.assert_array_equal(prediction.outputs["output"], tiny_answer(1), strict=True)


def test_several_inputs_and_outputs(client: PredictClient) -> None:
    """Inputs and outputs of a signature with several of them go by name."""
    outputs = client.predict("echo", {"a": [1.5], "b": np.array([2, 3], np.float32)}, signature_name="pair").outputs
    assert {name: array.tolist() for name, array in outputs.items()} == {"a": [1.5], "b": [2, 3]}


def test_several_inputs_need_names(client: PredictClient) -> None:
    """A bare array cannot stand for one of several inputs."""
    with pytest.raises(InvalidRequest):
        client.predict("echo", [1.5], signature_name="pair")


@pytest.mark.parametrize(
    ("question", "error"),
    [
        ({"model": "nobody"}, ServableNotFound),
        ({"model": "a/b c"}, ServableNotFound),
        ({"model": "tiny", "version": 7}, ServableNotFound),
        ({"model": "tiny", "label": "absent"}, InvalidRequest),
        ({"model": "tiny", "label": "a/b c"}, InvalidRequest),
        ({"model": "tiny", "signature_name": "absent"}, InvalidRequest),
        ({"model": "tiny", "inputs": {"other": ROWS}}, InvalidRequest),
        ({"model": "tiny", "inputs": [["a", "b", "c", "d"]]}, InvalidRequest),
        ({"model": "tiny", "inputs": [[True, True, True, True]]}, InvalidRequest),
        ({"model": "tiny", "inputs": [[1.0, 2.0], [3.0]]}, InvalidRequest),
        ({"model": "echo", "inputs": [1.5], "signature_name": "int32"}, InvalidRequest),
        ({"model": "echo", "inputs": [1], "signature_name": "string"}, InvalidRequest),
        ({"model": "", "version": 1}, InvalidRequest),
        ({"model": "tiny", "version": -1}, InvalidRequest),
        ({"model": "tiny", "version": 2**63}, InvalidRequest),
        ({"model": "tiny", "version": 1, "label": "stable"}, InvalidRequest),
    ],
)
@pytest.mark.parametrize("by_name", [False, True], ids=["bare", "by-name"])
def test_a_mistake_has_one_name(
    client: PredictClient, question: dict[str, Any], error: type[ServingError], by_name: bool
) -> None:
    """What is wrong with a request is the same error over REST and gRPC, however the inputs are given."""
    inputs = question.get("inputs", ROWS)
    if by_name and not isinstance(inputs, dict):
        inputs = {"x" if question["model"] == "echo" else "input": inputs}
    with pytest.raises(ServingError) as caught:
        client.predict(**{**question, "inputs": inputs})
    assert type(caught.value) is error
    assert caught.value.message


def test_what_cannot_be_sent(client: PredictClient) -> None:
    """An array of a type that no tensor has is refused before it is sent."""
    with pytest.raises(InvalidRequest):
        client.predict("tiny", {"input": np.array(["2024-01-01"], "datetime64[D]")})


def test_status(client: PredictClient) -> None:
    """The versions of a model come with their states, highest first."""
    assert client.status("tiny") == [
        VersionStatus(version, State.AVAILABLE, grpc.StatusCode.OK, "") for version in (2, 1)
    ]
    assert [each.version for each in client.status("tiny", 1)] == [1]


@pytest.mark.parametrize("question", [("nobody",), ("tiny", 7)])
def test_status_of_the_unknown(client: PredictClient, question: Any) -> None:
    """A model or version that the server has never seen is not found."""
    with pytest.raises(ServableNotFound):
        client.status(*question)


@pytest.mark.parametrize(("address", "version"), [({}, 2), ({"version": 1}, 1), ({"label": "stable"}, 1)])
def test_metadata(client: PredictClient, address: dict[str, Any], version: int) -> None:
    """The signatures of a version give the types and shapes of inputs and outputs."""
    metadata = client.metadata("tiny", **address)
    assert (metadata.model, metadata.version) == ("tiny", version)
    assert set(metadata.signatures) == {"serving_default", "counted"}
    signature = metadata.signatures["serving_default"]
    assert signature.inputs == {"input": TensorInfo("serving_default_input:0", 1, (-1, 4))}
    assert [(info.dtype, info.shape) for info in signature.outputs.values()] == [(np.dtype(np.float32), (-1, 3))]


def test_metadata_of_any_shape(client: PredictClient) -> None:
    """A tensor of unknown rank has no shape, and strings are objects."""
    info = client.metadata("echo").signatures["string"].inputs["x"]
    assert (info.dtype, info.shape) == (np.dtype(object), None)


def test_a_version_may_go_before_its_answer_is_understood(
    tiny_model: TinyModel, model_server: ModelServer, tmp_path: Path
) -> None:
    """The client asks for the metadata of the version that answered; when that is gone, another version answers."""
    base_path = tmp_path / "tiny"
    tiny_model(base_path, 1)
    tiny_model(base_path, 2)
    server = model_server(model_name="tiny", model_base_path=str(base_path))

    class SlowClient(RestClient):
        def metadata(self, model: str, *, version: int | None = None, label: str | None = None) -> ModelMetadata:
            if version == 2:
                shutil.rmtree(base_path / "2")
                wait_available(server, "tiny", 1)
                deadline = time.monotonic() + 30
                while server.data_plane.models.servable("tiny", 2) is not None:
                    assert time.monotonic() < deadline
            return super().metadata(model, version=version, label=label)

    with SlowClient(f"http://127.0.0.1:{server.rest_port}") as client:
        prediction = client.predict("tiny", ROWS)
    assert prediction.version == 1
    np.testing.assert_array_equal(prediction.outputs["output"], tiny_answer(1))


def test_no_tensorflow() -> None:
    """The clients come without TensorFlow, and the package without either client."""
    code = (
        "import sys, clients; assert 'grpc' not in sys.modules and 'requests' not in sys.modules;"
        "clients.RestClient, clients.GrpcClient, clients.PredictClient;"
        "sys.exit(any(name.split('.')[0].startswith(('tensorflow', 'keras')) for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
