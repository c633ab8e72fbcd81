"""Signatures of TensorFlow 1 and 2 have many forms; each is answered, or refused in one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import requests
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import predict_pb2

PREDICT = "tensorflow.serving.PredictionService/Predict"
ROW = {"dtype": types_pb2.DT_FLOAT, "tensor_shape": {"dim": [{"size": 1}]}, "float_val": [1.5]}


def save(target: Path) -> None:
    """A model without variables, as TensorFlow 1 exports them."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None], "x")
        tf.multiply(x, 2.0, "y")
        tf.constant([1.0, 2.0], name="c")
        tf.reshape(x, [1] * 65, "d")
        for name in ("qint8", "quint8", "qint32", "qint16", "quint16"):
            tf.identity(v1.placeholder(name, [None], f"in_{name}"), f"out_{name}")
        tf.raw_ops.HashTableV2(key_dtype=tf.string, value_dtype=tf.float32, name="r")
    saved_model = saved_model_pb2.SavedModel(saved_model_schema_version=1)
    for tags, default in ((["serve", "gpu"], "c:0"), (["serve"], "y:0"), (["train"], "c:0")):
        meta_graph = saved_model.meta_graphs.add(graph_def=graph.as_graph_def())
        meta_graph.meta_info_def.tags.extend(tags)
        _describe(meta_graph, "serving_default", default, types_pb2.DT_FLOAT)
    _describe(meta_graph := saved_model.meta_graphs[1], "no_inputs", "c:0", types_pb2.DT_FLOAT)
    meta_graph.signature_def["no_inputs"].inputs.clear()
    _describe(meta_graph, "untyped", "y:0", types_pb2.DT_INVALID)
    _describe(meta_graph, "of_another_time", "y:0", 77)
    _describe(meta_graph, "by_operation", "y", types_pb2.DT_FLOAT)
    _describe(meta_graph, "gone", "nothing:0", types_pb2.DT_FLOAT)
    _describe(meta_graph, "deep", "d:0", types_pb2.DT_FLOAT)
    _describe(meta_graph, "resource", "r:0", types_pb2.DT_RESOURCE)
    for name in ("qint8", "quint8", "qint32", "qint16", "quint16"):
        dtype = types_pb2.DataType.Value(f"DT_{name.upper()}")
        _describe(meta_graph, name, f"out_{name}:0", dtype, f"in_{name}:0", dtype)
    target.mkdir(parents=True)
    (target / "saved_model.pb").write_bytes(saved_model.SerializeToString())


def _describe(
    meta_graph: Any,
    name: str,
    fetch: str,
    dtype: int,
    feed: str = "x:0",
    feed_dtype: int | None = None,
) -> None:
    signature = meta_graph.signature_def[name]
    pairs = ((signature.inputs["x"], feed, feed_dtype), (signature.outputs["y"], fetch, dtype))
    for info, tensor, kind in pairs:
        info.name = tensor
        info.dtype = dtype if kind is None else kind
        info.tensor_shape.dim.add(size=-1)
    if name in ("gone", "by_operation", "resource", "serving_default"):
        signature.inputs["x"].dtype = types_pb2.DT_FLOAT


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from serving.server import Server
    from serving.settings import ServerSettings

    base_path = tmp_path_factory.mktemp("forms") / "model"
    save(base_path / "1")
    with Server(ServerSettings(model_base_path=str(base_path), max_num_load_retries=0)) as server:
        yield server


def predict(server: Any, signature: str, tensor: dict[str, Any] | None = None) -> Any:
    """The answer over gRPC."""
    request = predict_pb2.PredictRequest(model_spec={"name": "default", "signature_name": signature})
    if tensor is not None:
        request.inputs["x"].CopyFrom(type(request.inputs["x"])(**tensor))
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        call: Any = channel.unary_unary(
            f"/{PREDICT}",
            predict_pb2.PredictRequest.SerializeToString,
            predict_pb2.PredictResponse.FromString,
        )
        return call(request, timeout=20).outputs["y"]


def predict_rest(server: Any, signature: str) -> tuple[int, dict[str, Any]]:
    """Status and answer over REST."""
    body = {"signature_name": signature, "inputs": [1]}
    response = requests.post(f"http://127.0.0.1:{server.rest_port}/v1/models/default:predict", json=body, timeout=20)
    return response.status_code, response.json()


@pytest.mark.parametrize("signature", ["serving_default", "untyped", "of_another_time", "by_operation"])
def test_the_graph_knows_the_types(server: Any, signature: str) -> None:
    """The meta graph that is tagged for serving alone answers, whatever its signature says of types and names."""
    assert list(predict(server, signature, ROW).float_val) == [3.0]


def test_a_signature_may_have_no_inputs(server: Any) -> None:
    """Over gRPC it is answered; REST has no way to ask."""
    assert list(predict(server, "no_inputs").float_val) == [1.0, 2.0]
    assert predict_rest(server, "no_inputs") == (400, {"error": "Failed to get input map for signature: no_inputs"})


@pytest.mark.parametrize("name", ["qint8", "quint8", "qint32", "qint16", "quint16"])
@pytest.mark.parametrize("as_content", [False, True])
def test_quantized_integers_go_in_and_out(server: Any, name: str, as_content: bool) -> None:
    """They keep their type over gRPC; JSON has none for them."""
    dtype = types_pb2.DataType.Value(f"DT_{name.upper()}")
    size = {"8": 1, "6": 2, "2": 4}[name[-1]]
    values = {"tensor_content": (7).to_bytes(size, "little") * 2} if as_content else {"int_val": [7]}
    answer = predict(server, name, {"dtype": dtype, "tensor_shape": {"dim": [{"size": 2}]}, **values})
    assert (answer.dtype, list(answer.int_val)) == (dtype, [7, 7])
    assert predict_rest(server, name) == (501, {"error": f"Conversion of JSON Value: 1 to type: {name}"})


@pytest.mark.parametrize(
    ("signature", "code", "status", "text"),
    [
        ("gone", grpc.StatusCode.INVALID_ARGUMENT, 400, "Tensor nothing:0, specified in either feed_devices"),
        ("resource", grpc.StatusCode.UNIMPLEMENTED, 501, "Output 'y' is a tensor of type resource"),
        ("deep", grpc.StatusCode.INVALID_ARGUMENT, 400, "Cannot convert tensor with 65 dimensions"),
    ],
)
def test_what_cannot_be_fetched_is_refused(
    server: Any, signature: str, code: grpc.StatusCode, status: int, text: str
) -> None:
    """Nothing ends as a fault of the server, and the next request is answered."""
    with pytest.raises(grpc.RpcError) as caught:
        predict(server, signature, ROW)
    refused: Any = caught.value
    assert (refused.code(), refused.details()[: len(text)]) == (code, text)
    answered, answer = predict_rest(server, signature)
    assert (answered, answer["error"][: len(text)]) == (status, text)
    assert list(predict(server, "serving_default", ROW).float_val) == [3.0]


@pytest.mark.parametrize("dimensions", [65, 254])
@pytest.mark.parametrize("over", ["rows", "columns", "grpc"])
def test_more_dimensions_than_an_array_has_are_refused(server: Any, over: str, dimensions: int) -> None:
    """In one sentence with the name of the input, whether the values are empty or not."""
    reported = f"Input 'x' has {dimensions} dimensions, and no more than 64 are supported"
    if over == "grpc":
        shape = {"dim": [{"size": 1}] * dimensions}
        with pytest.raises(grpc.RpcError) as caught:
            predict(server, "serving_default", {**ROW, "tensor_shape": shape})
        refused: Any = caught.value
        assert (refused.code(), refused.details()) == (grpc.StatusCode.INVALID_ARGUMENT, reported)
        return
    key = "instances" if over == "rows" else "inputs"
    for value in ("1.5", ""):
        body = f'{{"{key}": {"[" * dimensions}{value}{"]" * dimensions}}}'
        url = f"http://127.0.0.1:{server.rest_port}/v1/models/default:predict"
        response = requests.post(url, data=body, timeout=20)
        assert (response.status_code, response.json()) == (400, {"error": reported})
