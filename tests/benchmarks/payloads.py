"""What is a server asked, in which form, and are its answers right?"""

from __future__ import annotations

import json
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import requests
from numpy.typing import NDArray
from sklearn.datasets import load_iris

from serving.protocol import wire_pb2 as wire
from serving.protocol.tensors import decode
from tests.benchmarks.servers import Running

PREDICT_METHOD = "/tensorflow.serving.PredictionService/Predict"
MAX_ANSWER_SECONDS = 30.0
_CHANNEL_OPTIONS = [("grpc.enable_http_proxy", 0)]  # a proxy for the internet does not lead here


class Form(Enum):
    """How the rows are written."""

    ROWS = "REST, row form"
    COLUMNS = "REST, column form"
    CONTENT = "gRPC, tensor_content"
    FIELDS = "gRPC, float_val"

    @property
    def is_rest(self) -> bool:
        return self in (Form.ROWS, Form.COLUMNS)


class WrongAnswer(Exception):
    """A server does not answer what the model answers, so it is not measured."""


def iris_rows(count: int) -> NDArray[np.float64]:
    """As many flowers as wanted, the data set again and again: float64 [count, 4], centimetres."""
    return np.resize(load_iris().data, (count, 4))


def request_body(form: Form, rows: NDArray[np.float64]) -> bytes:
    """A predict of these rows, as the body of a POST or as a ``PredictRequest``."""
    if form.is_rest:
        return json.dumps({"instances" if form is Form.ROWS else "inputs": rows.tolist()}).encode()
    shape = wire.TensorShapeProto(dim=[wire.TensorShapeProto.Dim(size=size) for size in rows.shape])
    tensor = wire.TensorProto(dtype=wire.DT_FLOAT, tensor_shape=shape)
    if form is Form.CONTENT:
        tensor.tensor_content = rows.astype("<f4").tobytes()
    else:
        tensor.float_val.extend(rows.ravel())
    return wire.PredictRequest(model_spec=wire.ModelSpec(name="iris"), inputs={"input": tensor}).SerializeToString()


def answers(saved_model: Path, rows: NDArray[np.float64]) -> NDArray[np.float32]:
    """What TensorFlow itself makes of these rows: float32 [rows, 3]."""
    import tensorflow as tf

    signature = tf.saved_model.load(str(saved_model)).signatures["serving_default"]
    return np.array(signature(input=tf.constant(rows, tf.float32))["output"])


def ask(server: Running, form: Form, body: bytes) -> bytes:
    """The answer to one request."""
    if form.is_rest:
        with requests.Session() as session:
            session.trust_env = False
            session.headers["content-type"] = "application/json"
            response = session.post(server.rest_url + server.predict_path, body, timeout=MAX_ANSWER_SECONDS)
        response.raise_for_status()
        return response.content
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}", _CHANNEL_OPTIONS) as channel:
        call: Callable[..., bytes] = channel.unary_unary(PREDICT_METHOD)
        return call(body, timeout=MAX_ANSWER_SECONDS)


def check(server: Running, form: Form, rows: NDArray[np.float64], expected: NDArray[np.float32]) -> None:
    """
    Ask once and compare.

    Raises:
        WrongAnswer: It is not `expected`.
    """
    found = _read(form, ask(server, form, request_body(form, rows)))
    if found.shape != expected.shape or not np.allclose(found, expected, rtol=1e-4, atol=1e-6):
        raise WrongAnswer(f"{server.name}, {form.value}, {len(rows)} rows: {found} where {expected} is right")


def _read(form: Form, answer: bytes) -> NDArray[Any]:
    if form.is_rest:
        return np.array(json.loads(answer)["predictions" if form is Form.ROWS else "outputs"])
    found: NDArray[Any] = decode(wire.PredictResponse.FromString(answer).outputs["output"])
    return found
