"""
Who asks without pause? ``python -m tests.faults.asker PORTS_AS_JSON``

Clients in a process of their own: half of them over REST, half over gRPC, half for the model, half for its label
``stable``, each on one connection that it never opens again. When standard input ends, every request is printed as a
line of JSON: the label, when it was sent and when its answer was there (seconds since 1970), and the version that
answered, or the words of what went wrong.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import grpc

from serving.protocol import wire_pb2 as wire

CLIENTS_EACH = 2
LABELS = ["", "stable"]
TIMEOUT_SECONDS = 10.0
BODY = json.dumps({"instances": [[0.0] * 4]}).encode()

Ask = Callable[[], int]


class WrongAnswer(Exception):
    """Not what any version answers."""


class Client(threading.Thread):
    """Asks until it is told to stop, or something goes wrong."""

    def __init__(self, label: str, ask: Ask, stopped: threading.Event) -> None:
        super().__init__()
        self.requests: list[tuple[str, float, float, int | str]] = []
        self._label = label
        self._ask = ask
        self._stopped = stopped

    def run(self) -> None:
        answer: int | str = 0
        while isinstance(answer, int) and not self._stopped.is_set():
            began = time.time()
            try:
                answer = self._ask()
            except Exception as exc:
                answer = repr(exc)
            self.requests.append((self._label, began, time.time(), answer))


def over_rest(port: int, label: str) -> Ask:
    """Asks one row on one connection, and reads from the values which version answered."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
    connection.connect()
    connection.auto_open = False
    target = f"/v1/models/tiny/labels/{label}:predict" if label else "/v1/models/tiny:predict"

    def ask() -> int:
        connection.request("POST", target, BODY)
        response = connection.getresponse()
        content = response.read()
        if response.status != 200:
            raise WrongAnswer(f"{response.status} {content!r}")
        return _version(int(response.headers["model-version"]), json.loads(content)["predictions"][0])

    return ask


def over_grpc(port: int, label: str) -> Ask:
    """The same on one channel."""
    spec = wire.ModelSpec(name="tiny", version_label=label) if label else wire.ModelSpec(name="tiny")
    shape = wire.TensorShapeProto(dim=[wire.TensorShapeProto.Dim(size=1), wire.TensorShapeProto.Dim(size=4)])
    tensor = wire.TensorProto(dtype=wire.DT_FLOAT, tensor_shape=shape, float_val=[0.0] * 4)
    request = wire.PredictRequest(model_spec=spec, inputs={"input": tensor}).SerializeToString()
    options = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
    channel = grpc.insecure_channel(f"127.0.0.1:{port}", options)
    call: Callable[..., bytes] = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")

    def ask() -> int:
        response = wire.PredictResponse.FromString(call(request, timeout=TIMEOUT_SECONDS))
        return _version(response.model_spec.version.value, list(response.outputs["output"].float_val))

    return ask


def main(ports: dict[str, int]) -> None:
    stopped = threading.Event()
    clients = [
        Client(label, over(port, label), stopped)
        for label in LABELS
        for over, port in ((over_rest, ports["rest"]), (over_grpc, ports["grpc"]))
        for _ in range(CLIENTS_EACH)
    ]
    for client in clients:
        client.start()
    sys.stdin.read()
    stopped.set()
    for client in clients:
        client.join()
        for request in client.requests:
            print(json.dumps(request))


def _version(told: int, values: list[Any]) -> int:
    """The version that is told, if the values are its own."""
    if values != [float(told)] * 3:
        raise WrongAnswer(f"version {told} does not answer {values}")
    return told


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
