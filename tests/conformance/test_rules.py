"""TensorFlow Serving's rules where no recorded answer shows them: rare values, and which of two errors comes first."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import requests
from google.protobuf import text_format
from tensorflow import make_tensor_proto
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import inference_pb2, model_management_pb2, predict_pb2

from serving.lifecycle.source import Watched, list_versions
from serving.protocol.errors import GraphError
from serving.repository.version_policy import All, Latest, Specific, VersionPolicy
from serving.runtime.saved_model import LoadOptions, load
from tests.conformance.cases import MODELS, read_setups
from tests.conformance.client import GrpcAnswer
from tests.conformance.launch import Client, running
from tests.conftest import ModelServer, TinyModel

SECONDS = 20.0
PREDICT = "tensorflow.serving.PredictionService/Predict"


@pytest.fixture(scope="module")
def setup(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of a server with the models of the recorded answers; the parameter is the name of its setup."""
    with running(read_setups()[request.param], tmp_path_factory.mktemp(request.param), native_grpc=True) as client:
        yield client


main = pytest.mark.parametrize("setup", ["main"], indirect=True)


def ask(client: Client, path: str, body: str, method: str = "POST") -> tuple[int, str]:
    """Status and error, or the whole body where there is none."""
    answer = client.rest({"method": method, "path": path, "body": body}, SECONDS)
    text = answer.body.decode()
    return answer.status, text if answer.status == 200 else json.loads(text)["error"]


@main
@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ('{"signature_name": "half", "inputs": []}', '{\n    "outputs": []\n}'),
        ('{"signature_name": "uint16", "instances": [[]]}', '{\n    "predictions": [[]\n    ]\n}'),
        ('{"instances": [{"x": 1, "x": 2}, {"x": 3, "x": 4}]}', '{\n    "predictions": [1.0, 2.0\n    ]\n}'),
        ('{"instances": [1152921573326323713]}', '{\n    "predictions": [1.1529215e+18\n    ]\n}'),
    ],
    ids=["nothing to convert", "nothing in a row", "a name twice in a row", "an integer is a double first"],
)
def test_values_are_read(setup: Client, body: str, answer: str) -> None:
    """What a model is fed follows from the JSON alone."""
    assert ask(setup, "/v1/models/dtypes:predict", body) == (200, answer)


@main
@pytest.mark.parametrize(
    ("model", "body", "error"),
    [
        (
            "dtypes",
            '{"signature_name": "half", "inputs": {"b64": "YQ"}}',
            'JSON Value: {\n    "b64": "YQ"\n} Type: Object is not of expected type: half',
        ),
        (
            "multi",
            '{"instances": [{"b64": "YQ"}]}',
            "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: "
            'JSON Value: {\n    "b64": "YQ"\n} Type: Object is not of expected type: float',
        ),
        (
            "dtypes",
            '{"instances": [{"x": [1], "x": [1, 2]}]}',
            "Failed to process element: 0 key: x of 'instances' list. Error: INVALID_ARGUMENT: "
            "Expecting tensor size: 1 but got: 2",
        ),
        (
            "dtypes",
            '{"signature_name": "string", "inputs": ["a", {"b64": "YQ", "b64": "YQ"}]}',
            'JSON Value: {\n    "b64": "YQ",\n    "b64": "YQ"\n} not formatted correctly for base64 data',
        ),
    ],
    ids=["an object is no half", "bytes for several inputs", "a name twice with two shapes", "bytes twice"],
)
def test_values_are_refused(setup: Client, model: str, body: str, error: str) -> None:
    """The error says what is wrong with the value itself."""
    assert ask(setup, f"/v1/models/{model}:predict", body) == (400, error)


@main
@pytest.mark.parametrize(
    ("body", "error"),
    [
        ('{"context": 5}', "Example must be JSON object but got JSON Number"),
        ('{"examples": [], "context": {"x": null}}', "Feature: x has element with unexpected JSON type: Null"),
        (f'{{"examples": [{{"x": [1.5, {2**63}]}}]}}', "Unexpected element type in feature: x expecting type: float"),
        ('{"examples": [{"x": [1, {"b64": "%"}]}]}', "Unexpected element type in feature: x expecting type: int64"),
        ('{"examples": [{"x": ["a", {"b64": "%"}]}]}', "Unable to base64 decode"),
        (
            '{"examples": [{"x": {"b64": "YQ", "b64": "YQ"}}]}',
            "Feature: x has element with unexpected JSON type: Object",
        ),
    ],
)
def test_the_first_error_of_examples_is_reported(setup: Client, body: str, error: str) -> None:
    """The context comes before the examples, the kind of a value before what is in it."""
    assert ask(setup, "/v1/models/classify_regress:classify", body) == (400, error)


@main
@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("/v1/models/iris?", 404, "Could not find any versions of model iris?"),
        ("/v1/models/iris#f", 404, "Could not find any versions of model iris#f"),
        ("http://host/v1/models/iris/metadata?", 400, "Malformed request: GET /v1/models/iris/metadata?"),
    ],
)
def test_what_follows_the_path_belongs_to_it(setup: Client, path: str, status: int, error: str) -> None:
    """Even an empty query makes it another path, and so does a fragment."""
    assert ask(setup, path, "", "GET") == (status, error)


@main
@pytest.mark.parametrize(
    "target", ["/v1/models/iris?x=%zz", "/v1/models/iris?\xe9", "/v1/models/{m}", '/v1/models/"', "/v1/models/a#b#c"]
)
def test_targets_that_are_no_uri_are_refused(setup: Client, target: str) -> None:
    """A character that has to be escaped, or a bad escape, is refused wherever it stands."""
    answer = setup.rest({"method": "GET", "path": target}, SECONDS)
    assert (answer.status, answer.headers["content-type"]) == (400, "text/html")


@main
@pytest.mark.parametrize("start", ["//", "/", "/v1/models/", "x://"])
def test_a_long_target_is_read_once(setup: Client, start: str) -> None:
    """One that is refused at its last character costs no more than one that is not."""
    assert setup.rest({"method": "GET", "path": f'{start}{"a" * 50_000}"'}, 2.0).status == 400


@pytest.mark.parametrize("setup", ["cors"], indirect=True)
@pytest.mark.parametrize(
    ("method", "path", "is_allowed"),
    [
        ("GET", "http://host/v1/models/iris", True),
        ("OPTIONS", "http://host/v1/x", True),
        ("GET", "/v1/models/%zz", False),
        ("TRACE", "/v1/models/iris", False),
    ],
)
def test_cors_headers_are_on_what_the_api_answers(setup: Client, method: str, path: str, is_allowed: bool) -> None:
    """Pages about what is no request to the API have none."""
    answer = setup.rest({"method": method, "path": path}, SECONDS)
    assert ("access-control-allow-origin" in answer.headers) == is_allowed


@pytest.mark.parametrize("setup", ["methodcheck"], indirect=True)
def test_values_are_read_before_the_method_name_is_checked(setup: Client) -> None:
    """A request that is wrong in both hears about its values."""
    path = "/v1/models/classify_regress:predict"
    assert ask(setup, path, '{"signature_name": "odd_method", "instances": []}')[1].endswith("'instances' array")
    status, error = ask(setup, path, '{"signature_name": "odd_method", "instances": [""]}')
    assert (status, error[:59]) == (500, "Expected prediction signature method_name to be one of {ten")


@pytest.mark.parametrize("setup", ["batching"], indirect=True)
@pytest.mark.parametrize(
    ("path", "body", "answer"),
    [
        (
            "scalar",
            '{"signature_name": "uneven", "inputs": [1.0, 2.0]}',
            "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input "
            "tensors",
        ),
        (
            "iris",
            '{"inputs": [[1, 2], [3, 4]]}',
            "Matrix size-incompatible: In[0]: [4,2], In[1]: [4,3]\n"
            "\t [[{{node StatefulPartitionedCall/StatefulPartitionedCall/add}}]]",
        ),
        (
            "text",
            '{"instances": ["a", "b", "c", "d", "e"]}',
            '{\n    "predictions": ["A", "B", "C", "D", "E"\n    ]\n}',
        ),
    ],
    ids=["the padding makes an output too short", "errors give the padded size", "the padding is cut off"],
)
def test_batches_are_padded_to_the_next_allowed_size(setup: Client, path: str, body: str, answer: str) -> None:
    """The graph sees 4 or 8 rows, whatever was sent."""
    assert ask(setup, f"/v1/models/{path}:predict", body)[1] == answer


@pytest.mark.parametrize("setup", ["batching_split"], indirect=True)
def test_a_batch_that_is_split_has_a_largest_size_too(setup: Client) -> None:
    """It is that of what one request may bring, not of what is run at a time."""
    bodies = [json.dumps({"instances": [[1.0, 2.0, 3.0, 4.0]] * rows}) for rows in (64, 65)]
    answers = [ask(setup, "/v1/models/iris:predict", body) for body in bodies]
    assert [status for status, _ in answers] == [200, 400]
    assert answers[1][1] == "Task size 65 is larger than maximum input batch size 64"


def predict(
    model: str, inputs: Mapping[str, Any], signature_name: str = "", output_filter: Sequence[str] = ()
) -> bytes:
    """A predict request; an input may be a TensorProto too."""
    request = predict_pb2.PredictRequest(output_filter=output_filter)
    request.model_spec.name, request.model_spec.signature_name = model, signature_name
    for alias, value in inputs.items():
        request.inputs[alias].CopyFrom(value if isinstance(value, tensor_pb2.TensorProto) else make_tensor_proto(value))
    content: bytes = request.SerializeToString()
    return content


@pytest.mark.parametrize("setup", ["batching"], indirect=True)
def test_only_what_a_signature_declares_is_batched(setup: Client) -> None:
    """Some of its outputs are asked for: then no rule of batching applies; types are checked after the rules."""
    rows = {"a": np.ones((9, 2), np.float32), "b": np.ones(9, np.int64)}
    assert setup.grpc(PREDICT, predict("multi", rows, output_filter=["sum"]), SECONDS).code == "OK"
    too_large = GrpcAnswer("INVALID_ARGUMENT", "Task size 9 is larger than maximum input batch size 8", b"")
    assert setup.grpc(PREDICT, predict("multi", rows), SECONDS) == too_large
    assert setup.grpc(PREDICT, predict("iris", {"input": np.ones((9, 4))}), SECONDS) == too_large


NO_TENSOR = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, tensor_content=b"abc")


@main
@pytest.mark.parametrize(
    ("inputs", "error"),
    [
        ({"x": NO_TENSOR, "z": 1.0}, "tensor parsing error: x"),
        ({"x": 1.0, "z": NO_TENSOR}, "Inputs contains invalid name. Used request inputs: x, request input: x,z"),
        ({"x": NO_TENSOR, "y": 1.0, "z": 1.0, "u": 1.0}, "input size does not match signature: 4!="),
    ],
    ids=["one of the signature's", "another one", "too many"],
)
def test_what_holds_no_tensor_is_reported_where_it_is_looked_at(
    setup: Client, inputs: dict[str, Any], error: str
) -> None:
    """The number of the inputs comes first, their names last."""
    answer = setup.grpc(PREDICT, predict("with_defaults", inputs), SECONDS)
    assert (answer.code, answer.message[: len(error)]) == ("INVALID_ARGUMENT", error)


@pytest.mark.parametrize("setup", ["empty"], indirect=True)
def test_a_reload_tells_what_was_counted_meanwhile(setup: Client) -> None:
    """By the names that TensorFlow gives its metrics; one that is not there has counted nothing."""
    request = model_management_pb2.ReloadConfigRequest()
    records, unknown = "/tensorflow/serving/model_warmup_records_read", "/no/metric"
    request.metric_names.extend([records, unknown, records])
    model = {"name": "warm", "base_path": str(MODELS / "warm_good"), "model_platform": "tensorflow"}
    request.config.model_config_list.config.add(**model)
    answer = setup.grpc(
        "tensorflow.serving.ModelService/HandleReloadConfigRequest", request.SerializeToString(), SECONDS
    )
    reported = model_management_pb2.ReloadConfigResponse.FromString(answer.response).metric
    assert {(each.name, each.int64_value_increase) for each in reported} == {(records, 3), (unknown, 0)}


@main
def test_a_signature_is_shown_in_the_order_of_its_keys(setup: Client) -> None:
    """As protobuf's C++ text is, whatever the order in the file."""
    body = '{"signature_name": "predict_examples", "examples": [{"x": [1.5, 2.5]}]}'
    error = ask(setup, "/v1/models/classify_regress:classify", body)[1]
    assert re.findall(r'key: "(\w+)"', error) == ["examples", "scores", "value"]


@main
def test_features_whose_names_are_no_text_are_ignored(setup: Client) -> None:
    """No model can ask for them."""
    plain, odd = ('{"examples": [{"x": [1.5, 2.5]%s}]}' % more for more in ("", r', "\udc00": 1'))  # noqa: UP031
    path = "/v1/models/classify_regress:classify"
    assert ask(setup, path, odd) == ask(setup, path, plain)
    assert ask(setup, path, plain)[0] == 200


@main
@pytest.mark.parametrize(
    "path", ["/v1/models/versions/9223372036854775808", "/v1/models/m/versions/9223372036854775808"]
)
def test_a_version_beyond_all_numbers_is_refused_without_a_word(setup: Client, path: str) -> None:
    """Whether there is a model name or not."""
    answer = setup.rest({"method": "GET", "path": path}, SECONDS)
    assert (answer.status, answer.body) == (400, b"")


@pytest.mark.parametrize("setup", ["broken"], indirect=True)
def test_a_failed_load_is_reported_in_tensorflows_own_words(setup: Client) -> None:
    """Without what Python's session says about them."""
    status = json.loads(ask(setup, "/v1/models/half/versions/1", "", "GET")[1])["model_version_status"][0]["status"]
    assert status["error_message"] == (
        "{root}/half/1/variables/variables.data-00000-of-00001; No such file or directory\n"
        "\t [[{{function_node __inference__traced_restore_76}}{{node RestoreV2}}]]"
    )


@pytest.mark.parametrize("content", [b"this is no saved model\n", b"\0" * 20], ids=["text", "zeros"])
def test_a_file_that_is_no_protobuf_is_reported_from_one_that_was_cut_off(tmp_path: Path, content: bytes) -> None:
    """The words and the code are those of TensorFlow's own reader."""
    file = tmp_path / "saved_model.pb"
    for found, code, message in (
        (content, grpc.StatusCode.DATA_LOSS, f"Can't parse {file} as binary proto"),
        (
            (MODELS / "iris/1/saved_model.pb").read_bytes()[:-1],
            grpc.StatusCode.OUT_OF_RANGE,
            "Read less bytes than requested",
        ),
    ):
        file.write_bytes(found)
        with pytest.raises(GraphError) as caught:
            load("iris", 1, tmp_path, LoadOptions())
        assert (caught.value.code, caught.value.message) == (code, message)


def test_a_graph_may_be_written_as_text(tmp_path: Path) -> None:
    """In ``saved_model.pbtxt``, which counts where there is no ``saved_model.pb``."""
    shutil.copytree(MODELS / "iris/1", tmp_path, dirs_exist_ok=True)
    binary, text = tmp_path / "saved_model.pb", tmp_path / "saved_model.pbtxt"
    text.write_text(text_format.MessageToString(saved_model_pb2.SavedModel.FromString(binary.read_bytes())))
    rows = {"input": np.ones((2, 4), np.float32)}
    answers = []
    for _ in range(2):
        servable = load("iris", 1, tmp_path, LoadOptions())
        call, arrays = servable.bind(servable.signatures["serving_default"], rows)
        answers.append(call(arrays)[0].tolist())
        servable.close()
        binary.unlink(missing_ok=True)
    assert answers[0] == answers[1]
    text.write_text("no graph")
    with pytest.raises(GraphError, match=f"^Can't parse {text} as text proto$") as caught:
        load("iris", 1, tmp_path, LoadOptions())
    assert caught.value.code is grpc.StatusCode.DATA_LOSS


@main
def test_multi_inference_without_tasks_names_no_model(setup: Client) -> None:
    """There is no task to take the model from."""
    answer = setup.grpc("tensorflow.serving.PredictionService/MultiInference", b"", SECONDS)
    assert answer == GrpcAnswer("INVALID_ARGUMENT", "ModelSpec has no name specified.", b"")


def test_the_page_counts_the_examples_of_multi_inference(tmp_path: Path) -> None:
    """In buckets of their own; metrics that nothing was counted for are named all the same."""
    models, monitoring = read_setups()["main"], read_setups()["monitoring"]
    setup = {**monitoring, "config": models["config"], "flags": [*models["flags"], *monitoring["flags"]]}
    request = inference_pb2.MultiInferenceRequest()
    request.tasks.add(method_name="tensorflow/serving/classify").model_spec.name = "classify_regress"
    for _ in range(3):
        feature = request.input.example_list.examples.add().features.feature["x"]
        feature.float_list.value.extend([1.5, 2.5])
    with running(setup, tmp_path, native_grpc=True) as client:
        method = "tensorflow.serving.PredictionService/MultiInference"
        assert client.grpc(method, request.SerializeToString(), SECONDS).code == "OK"
        page = client.rest({"method": "GET", "path": "/monitoring/prometheus/metrics"}, SECONDS).body.decode()
    lines = page.splitlines()
    name = ":tensorflow:serving:request_example_count"
    buckets = [line for line in lines if line.startswith(f"{name}s_bucket")]
    assert f'{name}_total{{model="classify_regress"}} 3' in lines
    assert [line.partition("le=")[2] for line in buckets[:4]] == ['"1"} 0', '"2"} 0', '"4"} 1', '"8"} 1']
    assert buckets[-2:] == [f'{name}s_bucket{{model="classify_regress",le="{le}"}} 1' for le in ("16384", "+Inf")]
    assert "# TYPE :tensorflow:serving:batching_session:wrapped_run_count counter" in lines


def test_the_page_counts_the_rows_of_batches(tmp_path: Path) -> None:
    """Those of requests and those of runs, in buckets; what was refused was not run."""
    batching, monitoring = read_setups()["batching"], read_setups()["monitoring"]
    files = {**batching["files"], **monitoring["files"]}
    setup = {**batching, "files": files, "flags": [*batching["flags"], *monitoring["flags"]]}
    with running(setup, tmp_path, native_grpc=True) as client:
        for rows in (1, 3, 9):
            ask(client, "/v1/models/iris:predict", json.dumps({"instances": [[1.0, 2.0, 3.0, 4.0]] * rows}))
        page = client.rest({"method": "GET", "path": "/monitoring/prometheus/metrics"}, SECONDS).body.decode()
    name = ":tensorflow:serving:batching_session"
    for line in (
        "wrapped_run_count{} 2",
        'input_batch_size_bucket{le="1"} 0',
        'input_batch_size_bucket{le="2"} 1',
        "input_batch_size_sum{} 4",
        "processed_batch_size_sum{} 8",
        "processed_batch_size_count{} 2",
        'padding_size_sum{execution_batch_size="4"} 4',
    ):
        assert f"{name}:{line}" in page.splitlines()


def test_fields_are_in_the_order_of_their_numbers(
    tiny_model: TinyModel, model_server: ModelServer, tmp_path: Path
) -> None:
    """Those with their default value too: version 0 comes first, as any other does."""
    tiny_model(tmp_path, 0)
    url = f"http://127.0.0.1:{model_server(model_base_path=str(tmp_path)).rest_port}/v1/models/default"
    assert requests.get(url, timeout=SECONDS).text.startswith(
        '{\n "model_version_status": [\n  {\n   "version": "0",\n   "state": "AVAILABLE",\n'
    )
    signatures = requests.get(f"{url}/metadata", timeout=SECONDS).json()["metadata"]["signature_def"]["signature_def"]
    nothing = signatures["__saved_model_init_op"]["outputs"]["__saved_model_init_op"]
    assert [*nothing, *nothing["tensor_shape"]] == ["name", "dtype", "tensor_shape", "dim", "unknown_rank"]


@pytest.mark.parametrize(("policy", "name"), [(Latest(), "1"), (Specific((1,)), "1"), (All(), "01")])
def test_of_two_names_for_a_version_one_is_taken(tmp_path: Path, policy: VersionPolicy, name: str) -> None:
    """The last one, or the first where all versions are served."""
    for each in ("1", "01"):
        (tmp_path / each).mkdir()
    assert list_versions(Watched(tmp_path, policy)).aspired[1].path == tmp_path / name
