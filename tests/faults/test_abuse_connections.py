"""Connections and requests that mean ill cost the server little, and nobody else anything."""

from __future__ import annotations

import http.client
import json
import resource
import select
import socket
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from tensorflow_serving.apis import predict_pb2

from tests.conformance.client import ask_grpc, open_channel
from tests.faults.bystander import ROW, undisturbed
from tests.faults.server_process import ServerProcess, recorded_models, server_process

pytestmark = pytest.mark.xdist_group("abuse-connections")

PREDICT = "tensorflow.serving.PredictionService/Predict"
BODY = json.dumps(ROW).encode()
HEAD = f"POST /v1/models/iris:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BODY)}\r\n".encode()
REQUEST = HEAD + b"\r\n" + BODY
FLOAT, STRING, INT64 = 1, 7, 9
MAX_GROWTH_MB = 400
SOON_SECONDS = 2.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with a metrics page; it and this process may open as many files as they like."""
    root = tmp_path_factory.mktemp("abuse")
    monitoring = root / "monitoring.config"
    monitoring.write_text("prometheus_config { enable: true }")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    with server_process(root, *recorded_models(root), f"--monitoring_config_file={monitoring}") as server:
        yield server
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextmanager
def harmless(server: ServerProcess) -> Iterator[None]:
    """The block slows nobody down for long, and the server does not keep much memory of it."""
    before = server.resident_mb()
    with undisturbed(server.url("iris"), within_seconds=SOON_SECONDS):
        yield
    assert server.resident_mb() - before < MAX_GROWTH_MB


def connected(server: ServerProcess, count: int, stack: ExitStack) -> list[socket.socket]:
    """Connections that are closed with the stack."""
    address = ("127.0.0.1", server.rest_port)
    return [stack.enter_context(socket.create_connection(address, 10)) for _ in range(count)]


def one_value(model: str, alias: str, data_type: int, shape: Sequence[int]) -> bytes:
    """A request to predict whose tensor claims a shape and has one value."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    _claim(request.inputs[alias], data_type, shape)
    serialized: bytes = request.SerializeToString()
    return serialized


def one_value_each(*shape: int) -> bytes:
    """The same for the model with two inputs."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "multi"
    _claim(request.inputs["a"], FLOAT, shape)
    _claim(request.inputs["b"], INT64, shape)
    serialized: bytes = request.SerializeToString()
    return serialized


def _claim(tensor: Any, data_type: int, shape: Sequence[int]) -> None:
    tensor.dtype = data_type
    tensor.float_val.append(1.0)
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)


def status_on(connection: socket.socket) -> int:
    """The status of the answer that comes next."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    response.read()
    return response.status


def are_closed(connections: Sequence[socket.socket], within_seconds: float) -> bool:
    """Does the server close all of these in time? What it says before does not matter."""
    deadline = time.monotonic() + within_seconds
    waiting = list(connections)
    while waiting and time.monotonic() < deadline:
        readable, _, _ = select.select(waiting, [], [], deadline - time.monotonic())
        waiting = [each for each in waiting if each not in readable or each.recv(65536)]
    return not waiting


def test_connections_that_are_left_open_are_free(server: ServerProcess, soak: bool) -> None:
    """Thousands of clients ask once and stay connected."""
    count = 10_000 if soak else 1_000
    with harmless(server), ExitStack() as stack:
        connections = connected(server, count, stack)
        for connection in connections:
            connection.sendall(REQUEST)
        assert {status_on(connection) for connection in connections} == {200}


def test_a_slow_sender_is_answered_like_any_other(server: ServerProcess, soak: bool) -> None:
    """Head and body come a byte at a time, from many clients at once."""
    with harmless(server), ExitStack() as stack:
        connections = connected(server, 500 if soak else 30, stack)
        for connection in connections:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in REQUEST:
            for connection in connections:
                connection.sendall(bytes([byte]))
        assert {status_on(connection) for connection in connections} == {200}


@pytest.mark.parametrize("sent", [b"", HEAD[:20], HEAD, REQUEST[:-5]], ids=["nothing", "line", "head", "body"])
def test_a_sender_who_stops_disturbs_nobody(server: ServerProcess, sent: bytes) -> None:
    """A request whose rest never comes costs a connection, and no more."""
    with harmless(server), ExitStack() as stack:
        for connection in connected(server, 50, stack):
            connection.sendall(sent)
        assert [
            requests.post(f"{server.url('iris')}:predict", json=ROW, timeout=10).status_code for _ in range(20)
        ] == [200] * 20


@pytest.mark.parametrize("sent", [HEAD[:20], HEAD, REQUEST[:-5]], ids=["line", "head", "body"])
def test_a_sender_who_stops_for_ever_is_cut_off(
    model_server: Any, tiny_model: Any, tmp_path: Path, sent: bytes
) -> None:
    """A request that is never finished is answered with 408 and does not hold its connection for ever."""
    tiny_model(tmp_path, 1)
    server = model_server(model_base_path=str(tmp_path), rest_receive_seconds=0.5)
    with socket.create_connection(("127.0.0.1", server.rest_port), 10) as connection:
        connection.sendall(sent)
        assert status_on(connection) == 408
        assert are_closed([connection], within_seconds=1.0)


def test_a_body_without_end_is_cut_off(server: ServerProcess) -> None:
    """Chunk after chunk is read up to a limit only."""
    with ExitStack() as stack:
        connection = connected(server, 1, stack)[0]
        connection.sendall(b"POST /v1/models/iris:predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert _is_refused_after(connection, b"100000\r\n" + b" " * 2**20 + b"\r\n", 300)


def test_a_head_without_end_is_cut_off(server: ServerProcess) -> None:
    """Header after header is read up to a limit only."""
    with ExitStack() as stack:
        connection = connected(server, 1, stack)[0]
        connection.sendall(HEAD)
        assert _is_refused_after(connection, b"X-Filler: " + b"x" * 2**16 + b"\r\n", 300)


@pytest.mark.parametrize("where", ["path", "query", "header", "headers"])
def test_a_long_head_is_answered_or_refused(server: ServerProcess, where: str) -> None:
    """A megabyte of URL or headers gets an answer, or the end of its connection."""
    long = "x" * 2**20
    target = {"path": f"/v1/models/{long}:predict", "query": f"/v1/models/iris:predict?{long}"}.get(
        where, "/v1/models/iris:predict"
    )
    headers = {"header": f"X-Long: {long}\r\n", "headers": "X: y\r\n" * (2**20 // 6)}.get(where, "")
    with harmless(server), ExitStack() as stack:
        connection = connected(server, 1, stack)[0]
        try:
            connection.sendall(f"POST {target} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: 0\r\n\r\n".encode())
            assert 400 <= status_on(connection) < 500
        except (http.client.RemoteDisconnected, ConnectionError):
            assert are_closed([connection], within_seconds=1.0)


@pytest.mark.parametrize(
    "kind", ["spaces", *(pytest.param(each, marks=pytest.mark.soak) for each in ("numbers", "text"))]
)
def test_a_huge_body_is_answered_or_refused(server: ServerProcess, kind: str, soak: bool) -> None:
    """16 MB, and in the long form 100, are more than is read on the loop, and get an answer that blames them."""
    size = (100 if soak else 16) * 2**20
    row = b"[1.0, 2.0, 3.0, 4.0],"
    body = {
        "spaces": b" " * size,
        "numbers": b'{"instances": [' + row * (size // len(row)) + b"[]]}",
        "text": b'{"instances": "' + b"x" * size + b'"}',
    }[kind]
    with harmless(server):
        answer = requests.post(f"{server.url('iris')}:predict", data=body, timeout=60)
    assert answer.status_code in (400, 413)


def test_a_gzip_bomb_is_defused(server: ServerProcess, soak: bool) -> None:
    """What would fill the memory once inflated counts as empty, however often it comes."""
    packer = zlib.compressobj(1, wbits=16 + zlib.MAX_WBITS)
    megabyte = b" " * 2**20
    bomb = b"".join([packer.compress(megabyte) for _ in range(4096 if soak else 256)]) + packer.flush()
    with harmless(server):
        for _ in range(20 if soak else 4):
            answer = requests.post(
                f"{server.url('iris')}:predict", data=bomb, headers={"Content-Encoding": "gzip"}, timeout=60
            )
            assert (answer.status_code, answer.json()["error"]) == (400, "JSON Parse error: The document is empty")


@pytest.mark.parametrize("depth", [100_000, 1_000_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"x":', "}"), ("[", "")], ids=["list", "map", "open"])
def test_json_of_any_depth_is_read_or_refused(server: ServerProcess, depth: int, opening: str, closing: str) -> None:
    """No nesting is so deep that the server falls over."""
    body = '{"instances": ' + opening * depth + "1" + closing * depth + "}"
    with harmless(server):
        answer = requests.post(f"{server.url('iris')}:predict", data=body, timeout=60)
    assert answer.status_code == 400


@pytest.mark.parametrize(
    "shape",
    [[2**40], [2**62, 4], [-1, 4], [2**31, 2**31, 2**31], [2**30], [0, 2**62, 2**62], [1] * 300],
    ids=str,
)
@pytest.mark.parametrize(
    ("model", "alias", "data_type"), [("iris", "input", FLOAT), ("stateful_table", "word", STRING)]
)
def test_a_shape_is_not_believed(
    server: ServerProcess, model: str, alias: str, data_type: int, shape: list[int]
) -> None:
    """A few bytes that claim to be a huge tensor are refused, or filled within bounds."""
    with harmless(server), open_channel(server.grpc_port) as channel:
        answer = ask_grpc(channel, PREDICT, one_value(model, alias, data_type, shape), 60)
    assert answer.code == "INVALID_ARGUMENT"


@pytest.mark.parametrize("rows", [2**25, 2**32, 2**62])
def test_rows_without_values_are_not_believed(server: ServerProcess, rows: int) -> None:
    """They take no bytes, but the sum of each would be a number."""
    with harmless(server), open_channel(server.grpc_port) as channel:
        answer = ask_grpc(channel, PREDICT, one_value_each(rows, 0), 60)
    assert answer.code == "INVALID_ARGUMENT"


def test_what_a_graph_makes_too_large_holds_up_nobody(server: ServerProcess) -> None:
    """Of rows without columns this one makes their square, for which there is no memory."""
    with harmless(server), open_channel(server.grpc_port) as channel:
        answer = ask_grpc(channel, PREDICT, one_value_each(2**20), 60)
    assert answer.code in ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED")


def test_millions_of_empty_strings_are_read(server: ServerProcess, soak: bool) -> None:
    """A string tensor may have many elements and no bytes."""
    count = 10_000_000 if soak else 1_000_000
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "stateful_table"
    tensor = request.inputs["word"]
    tensor.dtype = STRING
    tensor.tensor_shape.dim.add(size=count)
    tensor.string_val.extend([b""] * count)
    with harmless(server), open_channel(server.grpc_port) as channel:
        answer = ask_grpc(channel, PREDICT, request.SerializeToString(), 60)
    assert answer.code == "OK"


def test_names_that_nobody_serves_do_not_fill_the_memory(server: ServerProcess, soak: bool) -> None:
    """Whatever models are asked for, the metrics page stays short, and readable."""
    page = f"http://127.0.0.1:{server.rest_port}/monitoring/prometheus/metrics"
    with harmless(server), open_channel(server.grpc_port) as channel:
        for number in range(100_000 if soak else 1_500):
            request = predict_pb2.PredictRequest()
            request.model_spec.name = f"nobody-{number}"
            assert ask_grpc(channel, PREDICT, request.SerializeToString(), 10).code == "NOT_FOUND"
        assert requests.post(f"{server.url('no%FFbody')}:predict", data=BODY, timeout=10).status_code == 404
        metrics = requests.get(page, timeout=10)
    assert metrics.status_code == 200
    assert metrics.text.count("nobody-") <= 1_000


@pytest.mark.parametrize(
    ("rows", "code"), [(2**22, "OK"), (2**22 + 1, "INVALID_ARGUMENT"), (2**24, "INVALID_ARGUMENT")]
)
def test_a_shape_is_filled_within_bounds(server: ServerProcess, rows: int, code: str) -> None:
    """One value may stand for many, but so many that others have to wait are refused."""
    request = one_value("iris", "input", FLOAT, [rows, 4])
    with open_channel(server.grpc_port) as channel, harmless(server):
        answer = ask_grpc(channel, PREDICT, request, 60)
    assert answer.code == code


def _is_refused_after(connection: socket.socket, part: bytes, count: int) -> bool:
    """Is the connection answered or closed while so many parts are sent, or right after?"""
    try:
        for _ in range(count):
            connection.sendall(part)
            if select.select([connection], [], [], 0)[0]:
                return True
    except ConnectionError:
        return True
    return bool(select.select([connection], [], [], 1.0)[0])
