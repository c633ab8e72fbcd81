"""
What can the transports do when nothing is done? ``python -m tests.benchmarks.empty_handlers PORTS_FILE``

The same uvicorn and the same gRPC server as ours, in one event loop as ours, with handlers that read the request and
answer always the same.
"""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from typing import Any

import grpc
import uvicorn
import uvloop

from serving.protocol import wire_pb2 as wire

try:
    import pygrpc_native.aio as aio
except ImportError:  # our server falls back to the same
    from grpc import aio

SERVICE = "tensorflow.serving.PredictionService"
REST_ANSWER = json.dumps({"predictions": [[0.1, 0.2, 0.7]]}).ljust(100).encode()
GRPC_ANSWER = wire.PredictResponse(
    model_spec=wire.ModelSpec(name="iris", signature_name="serving_default"),
    outputs={"output": wire.TensorProto(dtype=wire.DT_FLOAT, float_val=[0.1, 0.2, 0.7])},
).SerializeToString()
HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"100")]


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Read the body, answer 100 bytes."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": REST_ANSWER})


async def predict(request: bytes, context: Any) -> bytes:
    return GRPC_ANSWER


async def main(ports_file: Path) -> None:
    """Serve until SIGTERM."""
    grpc_server = aio.server(options=[("grpc.max_receive_message_length", -1)])
    handlers: dict[str, Any] = {"Predict": grpc.unary_unary_rpc_method_handler(predict)}
    grpc_server.add_registered_method_handlers(SERVICE, handlers)
    grpc_port = grpc_server.add_insecure_port("127.0.0.1:0")
    await grpc_server.start()
    rest_socket = socket.create_server(("127.0.0.1", 0))
    ports = {"rest_port": rest_socket.getsockname()[1], "grpc_port": grpc_port}
    config = uvicorn.Config(app, http="httptools", ws="none", lifespan="off", log_config=None, access_log=False)
    partial = ports_file.with_suffix(".partial")
    partial.write_text(json.dumps(ports))
    partial.replace(ports_file)  # the socket listens already
    await uvicorn.Server(config).serve([rest_socket])
    await grpc_server.stop(None)


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1])))
