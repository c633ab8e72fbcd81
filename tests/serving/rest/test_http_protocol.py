"""HTTP/1.1 as clients and proxies speak it, byte by byte over raw sockets against a running server."""

from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc
import pytest

from serving.protocol import wire_pb2 as wire
from serving.server import Server
from serving.settings import ServerSettings
from tests.conftest import ModelServer, TinyModel

PREDICT = "/v1/models/tiny:predict"
BODY_LIMIT = 100_000
HEAD_LIMIT = 1_000
TIMEOUT_SECONDS = 10.0
WARM_SECONDS = 60.0
"""Server and clients share one process: with 2,000 rows at a time, grpcio's threads wait long for their turn."""
PROJECT = Path(__file__).parents[3]
CLIENTS_EACH = 4
WARM_ANSWERS = 5
"""of each client, before the server stops"""
REST_REFUSALS = (ConnectionRefusedError, ConnectionResetError, BrokenPipeError, http.client.RemoteDisconnected)


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def value(self) -> float:
        """The first number that the model gave."""
        return float(json.loads(self.body)["predictions"][0][0])


class Client:
    """Sends what it likes on one connection."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS)
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()
        self.socket.close()

    def send(self, *requests: bytes) -> None:
        """Send all of it at once."""
        self.socket.sendall(b"".join(requests))

    def say_no_more(self) -> None:
        """Close this end of the connection."""
        self.socket.shutdown(socket.SHUT_WR)

    def answer(self, with_body: bool = True) -> Answer:
        """The next answer, as it is framed by its content length."""
        version, status, _ = self._file.readline().split(b" ", 2)
        assert version == b"HTTP/1.1"
        lines = iter(self._file.readline, b"\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.decode().partition(":") for line in lines)}
        length = int(headers.get("content-length", 0)) if with_body else 0
        body = self._file.read(length)
        assert len(body) == length
        return Answer(int(status), headers, body)

    def is_told_nothing_more(self) -> bool:
        """Does the server end the connection without another byte?"""
        return self._file.read() == b""


def post(number: float = 0.0, *headers: str, version: str = "1.1", target: str = PREDICT) -> bytes:
    """A request to predict one row whose answer is this number and the version's."""
    body = json.dumps({"instances": [[number, 0.0, 0.0, 0.0]]}).encode()
    return head(f"Content-Length: {len(body)}", *headers, version=version, target=target) + body


def head(*headers: str, version: str = "1.1", target: str = PREDICT, method: str = "POST") -> bytes:
    """What comes before the body."""
    return "\r\n".join([f"{method} {target} HTTP/{version}", "Host: x", *headers, "", ""]).encode()


def chunk(content: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(content), content)


BODY = json.dumps({"instances": [[5.0, 0.0, 0.0, 0.0]]}).encode()
GET_HEALTH = head(target="/healthz", method="GET")
CHUNKED = head("Transfer-Encoding: chunked")
SMUGGLED = post(66.0)


@pytest.fixture(scope="module")
def base_path(tiny_model: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("http") / "tiny"
    tiny_model(path, 1)
    return path


@pytest.fixture(scope="module")
def server(base_path: Path) -> Iterator[Server]:
    """A server of version 1 with low limits."""
    limits = {"rest_max_body_bytes": BODY_LIMIT, "rest_max_head_bytes": HEAD_LIMIT}
    settings: dict[str, Any] = {"model_name": "tiny", "model_base_path": str(base_path), **limits}
    with Server(ServerSettings(**settings)) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.rest_port) as client:
        yield client


@pytest.fixture
def start(base_path: Path, model_server: ModelServer) -> Callable[..., Server]:
    """Starts a server of version 1 with other settings."""

    def start(**settings: Any) -> Server:
        server: Server = model_server(model_name="tiny", model_base_path=str(base_path), **settings)
        return server

    return start


def served(server: Server) -> int:
    """How many requests to predict have been answered well, by the server's own count."""
    found = re.search(r'request_count\{model_name="tiny",status="OK"\} (\d+)', server.data_plane.metrics_page())
    return int(found[1]) if found else 0


def test_pipelined_requests_are_answered_in_their_order(client: Client) -> None:
    """Quick answers, slow ones and errors come in the order of their requests."""
    client.send(*[post(float(number)) + GET_HEALTH + post(target="/v1/models/none:predict") for number in range(50)])
    for number in range(50):
        assert client.answer().value == number + 1
        assert client.answer().body == b"ok\n"
        assert client.answer().status == 404


def one_by_one(client: Client, *requests: bytes) -> list[Answer]:
    """The answer to each request, which is sent when the one before is answered."""
    answers = []
    for request in requests:
        client.send(request)
        answers.append(client.answer())
    return answers


def test_requests_of_one_connection_are_told_apart(client: Client) -> None:
    """However much of a body comes with its head, and whatever comes behind."""
    answers = one_by_one(client, post(1.0), post(2.0), GET_HEALTH, post(3.0), GET_HEALTH, post(4.0, "X-Other: 1"))
    assert [answer.value for answer in answers if answer.body != b"ok\n"] == [2.0, 3.0, 4.0, 5.0]
    client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for cut in (1, 40, len(post(5.0)) - 1):
        client.send(post(5.0)[:cut])
        client.send(post(5.0)[cut:] + post(6.0) + post(7.0)[:cut])
        client.send(post(7.0)[cut:])
        assert [client.answer().value for _ in range(3)] == [6.0, 7.0, 8.0]
    (refused,) = one_by_one(client, post(target="/v1/models/none:predict"))
    assert refused.status == 404


def test_a_connection_that_is_to_end_ends_whatever_was_sent_before(client: Client) -> None:
    """What follows the last request is not read."""
    last = post(2.0, "Connection: close")
    one_by_one(client, post(1.0), post(1.0))
    client.send(last)
    assert client.answer().value == 3.0
    assert client.is_told_nothing_more()


@pytest.mark.parametrize("size", [1, 7, 100])
def test_requests_may_come_in_pieces_of_any_size(client: Client, size: int) -> None:
    """Where the network cuts does not matter."""
    client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sent = post(1.0) + CHUNKED + chunk(BODY[:9]) + chunk(BODY[9:]) + chunk(b"") + post(2.0)
    for start in range(0, len(sent), size):
        client.send(sent[start : start + size])
    assert [client.answer().value for _ in range(3)] == [2.0, 6.0, 3.0]


def test_a_client_that_waits_for_100_is_reported_to_go_on(client: Client) -> None:
    """The body is asked for, and the answer follows."""
    client.send(head(f"Content-Length: {len(BODY)}", "Expect: 100-Continue"))
    assert client.answer() == Answer(100, {}, b"")
    client.send(BODY)
    assert client.answer().value == 6.0


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (head("Expect: 100-continue", "Content-Length: 0"), 400),
        (head("Expect: miracles"), 400),
        (head("Expect: miracles", "Content-Length: 2", version="1.0") + b"{}", 400),
        (head("Expect: 100-continue", target="/healthz", method="GET"), 200),
    ],
    ids=["no bytes", "no body", "HTTP/1.0", "GET"],
)
def test_without_a_body_to_wait_for_nothing_is_expected(client: Client, request_head: bytes, status: int) -> None:
    """The first thing that is heard is the answer."""
    client.send(request_head)
    assert client.answer().status == status


def test_a_client_that_waits_for_100_with_too_much_is_not_told_to_go_on(client: Client) -> None:
    """The first thing it hears is the refusal, whatever the order of its headers."""
    client.send(head("Expect: 100-continue", f"Content-Length: {BODY_LIMIT + 1}"))
    assert client.answer().status == 413


def test_trailers_are_read_and_not_mixed_up_with_headers(client: Client) -> None:
    """What follows the last chunk belongs to the request, and the next request starts after it."""
    trailers = b"0\r\nContent-Encoding: gzip\r\nX-Checksum: 1\r\n\r\n"
    client.send(CHUNKED, chunk(BODY), trailers, post(7.0))
    assert [client.answer().value for _ in range(2)] == [6.0, 8.0]


@pytest.mark.parametrize(
    "refused",
    [
        CHUNKED + b"xyz\r\n",
        CHUNKED + chunk(BODY)[:-2] + b"no line end",
        CHUNKED + b"ffffffffffffffffff\r\n",
        head("Content-Length: 5", "Transfer-Encoding: chunked"),
        head("Content-Length: 5", "Content-Length: 6"),
        head("Content-Length: -5"),
        head("Content-Length: 5, 5"),
        head("Transfer-Encoding: chunked, identity"),
        head("X-Space : y"),
        head("X-Zero: \0"),
        head(version="3.0"),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"NONSENSE\r\n\r\n",
    ],
    ids=[
        "chunk size",
        "chunk end",
        "endless chunk",
        "length and chunks",
        "two lengths",
        "negative length",
        "list of lengths",
        "chunked not last",
        "space in name",
        "zero byte",
        "version",
        "TLS",
        "no HTTP",
    ],
)
def test_what_is_no_http_ends_the_connection(client: Client, server: Server, refused: bytes) -> None:
    """What was asked before is answered, the rest gets one 400, and nothing after it counts as a request."""
    before = served(server)
    client.send(post(3.0), refused, SMUGGLED)
    assert client.answer().value == 4.0
    answer = client.answer()
    assert (answer.status, answer.headers["connection"]) == (400, "close")
    assert client.is_told_nothing_more()
    assert served(server) == before + 1


@pytest.mark.parametrize(
    ("refused", "status"),
    [
        (head(f"Content-Length: {BODY_LIMIT + 1}"), 413),
        (CHUNKED + chunk(b" " * BODY_LIMIT) + chunk(b" "), 413),
        (head(target="/" + "x" * HEAD_LIMIT), 414),
        (head("X-Long: " + "y" * HEAD_LIMIT), 431),
        (head(*["X: y"] * HEAD_LIMIT), 431),
        (head(method="BREW"), 501),
        (head(method="CONNECT", target="x:80"), 501),
        (head("Expect: miracles", f"Content-Length: {len(BODY)}"), 417),
        (head("Expect: miracles", "Transfer-Encoding: chunked"), 417),
        (head(target=PREDICT[1:]), 404),
    ],
    ids=["length", "chunks", "target", "header", "headers", "method", "tunnel", "expect", "expect chunks", "relative"],
)
def test_what_is_refused_is_refused_by_name_and_nothing_after_it_is_read(
    server: Server, client: Client, refused: bytes, status: int
) -> None:
    """The connection ends with the refusal: what is left of the request cannot pass for another one."""
    before = served(server)
    client.send(refused, SMUGGLED * 100)
    answer = client.answer()
    assert (answer.status, answer.headers["connection"]) == (status, "close")
    assert client.is_told_nothing_more()
    assert served(server) == before


def test_what_is_as_large_as_allowed_is_read(client: Client) -> None:
    """The limits themselves are within the limits."""
    body = BODY.ljust(BODY_LIMIT)
    client.send(head(f"Content-Length: {len(body)}"), body, CHUNKED, chunk(body), chunk(b""))
    assert [client.answer().value for _ in range(2)] == [6.0, 6.0]


@pytest.mark.parametrize("is_chunked", [False, True])
def test_an_upgrade_is_not_granted_and_the_request_is_answered(client: Client, is_chunked: bool) -> None:
    """HTTP/2 by upgrade is offered by common clients; they go on with HTTP/1.1, body and next request included."""
    offer = ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"]
    body = chunk(BODY) + chunk(b"") if is_chunked else BODY
    framing = "Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {len(BODY)}"
    client.send(head(*offer, framing), body, head(*offer, target="/healthz", method="GET"), post(8.0))
    assert client.answer().value == 6.0
    assert client.answer().body == b"ok\n"
    assert client.answer().value == 9.0


def test_http_2_without_asking_is_refused(client: Client) -> None:
    """A client that takes HTTP/2 for granted is refused at once."""
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert client.answer().status >= 400
    assert client.is_told_nothing_more()


def test_http_1_0_closes_unless_asked_to_stay(client: Client, server: Server) -> None:
    """An old client gets one answer and the end of the connection, or keep-alive where it asks for it."""
    client.send(post(1.0, "Connection: keep-alive", version="1.0"))
    answer = client.answer()
    assert (answer.value, answer.headers["connection"]) == (2.0, "keep-alive")
    client.send(post(2.0, version="1.0"))
    answer = client.answer()
    assert (answer.value, answer.headers["connection"]) == (3.0, "close")
    assert client.is_told_nothing_more()


def test_nothing_is_answered_after_connection_close(
    client: Client, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """A client that says that this is its last request gets its answer, and what it sends on top is thrown away."""
    before = served(server)
    client.send(post(1.0, "Connection: close"), SMUGGLED)
    answer = client.answer()
    assert (answer.value, answer.headers["connection"]) == (2.0, "close")
    assert client.is_told_nothing_more()
    with Client(server.rest_port) as next_client:
        next_client.send(post(1.0))
        assert next_client.answer().value == 2.0
    assert served(server) == before + 2
    assert not caplog.records


def test_head_has_the_headers_and_no_body(client: Client) -> None:
    """The length is that of the answer which is left out, and the next answer follows the headers."""
    client.send(head(method="HEAD", target="/v1/models/tiny"), post(1.0))
    reported = client.answer(with_body=False)
    assert int(reported.headers["content-length"]) > 0
    assert client.answer().value == 2.0


@pytest.mark.parametrize("last", [post(9.0), CHUNKED + b"no chunk"], ids=["good", "broken"])
def test_a_client_that_closes_its_side_still_gets_its_answers(client: Client, last: bytes) -> None:
    """Whoever shuts down after asking hears all answers, then the end."""
    client.send(post(1.0), post(2.0), last)
    client.say_no_more()
    assert [client.answer().value for _ in range(2)] == [2.0, 3.0]
    assert client.answer().status in (200, 400)
    assert client.is_told_nothing_more()


def test_a_request_that_is_not_finished_is_not_answered(client: Client, server: Server) -> None:
    """A client that goes away in the middle of a body gets the end of the connection."""
    before = served(server)
    client.send(post(1.0)[:-1])
    client.say_no_more()
    assert client.is_told_nothing_more()
    assert served(server) == before


def test_connections_above_the_limit_are_refused_until_others_end(start: Callable[..., Server]) -> None:
    """The one too many hears 503, those before it are served, and a place that gets free is taken."""
    server = start(rest_max_connections=2)
    with Client(server.rest_port) as first, Client(server.rest_port) as second:
        for number, client in enumerate([first, second]):
            client.send(post(number))
            assert client.answer().value == number + 1
        with Client(server.rest_port) as third:
            third.send(post())
            assert third.answer().status == 503
            assert third.is_told_nothing_more()
        first.send(post(5.0))
        assert first.answer().value == 6.0
    deadline = time.monotonic() + TIMEOUT_SECONDS
    statuses = [503]
    while statuses[-1] != 200:
        assert time.monotonic() < deadline
        with Client(server.rest_port) as client:
            client.send(post())
            statuses.append(client.answer().status)


def test_bodies_together_above_the_limit_are_refused_until_others_are_answered(start: Callable[..., Server]) -> None:
    """The body that does not fit hears 503; the one that came before it is answered, and makes room."""
    server = start(rest_max_buffered_bytes=1_000)
    body = BODY.ljust(900)
    request = head(f"Content-Length: {len(body)}") + body
    with Client(server.rest_port) as first, Client(server.rest_port) as second, Client(server.rest_port) as third:
        first.send(request[:-1])
        second.send(request, SMUGGLED)
        assert second.answer().status == 503
        assert second.is_told_nothing_more()
        first.send(request[-1:])
        assert first.answer().value == 6.0
        third.send(request)
        assert third.answer().value == 6.0


def test_clients_that_go_away_make_room(start: Callable[..., Server]) -> None:
    """What was buffered for a client that is gone is not counted any more."""
    server = start(rest_max_buffered_bytes=1_000)
    body = BODY.ljust(900)
    request = head(f"Content-Length: {len(body)}") + body
    for _ in range(20):
        with Client(server.rest_port) as leaving:
            leaving.send(request[:-1])
            leaving.say_no_more()
            assert leaving.is_told_nothing_more()
    with Client(server.rest_port) as client:
        client.send(request)
        assert client.answer().value == 6.0


def test_a_connection_on_which_nothing_happens_ends_without_a_word(start: Callable[..., Server]) -> None:
    """An idle client is let go; one that asks now and then is kept."""
    server = start(rest_idle_seconds=1.0)
    with Client(server.rest_port) as idle, Client(server.rest_port) as silent, Client(server.rest_port) as active:
        idle.send(post())
        assert idle.answer().status == 200
        closed = threading.Event()

        def wait_for_both() -> None:
            if idle.is_told_nothing_more() and silent.is_told_nothing_more():
                closed.set()

        waiting = threading.Thread(target=wait_for_both)
        waiting.start()
        while waiting.is_alive():
            active.send(GET_HEALTH)
            assert active.answer().status == 200
            waiting.join(0.1)
        assert closed.is_set()


def test_a_client_that_reads_late_gets_everything(start: Callable[..., Server]) -> None:
    """Answers that nobody reads yet are kept, and the requests behind them wait."""
    server = start()
    body = json.dumps({"instances": [[1.0, 2.0, 3.0, 4.0]] * 10_000}).encode()
    request = head(f"Content-Length: {len(body)}") + body
    with Client(server.rest_port) as client:
        sending = threading.Thread(target=client.send, args=(request * 50,))
        sending.start()
        while not served(server):
            time.sleep(0)
        answers = [client.answer() for _ in range(50)]
        sending.join()
    assert {answer.body for answer in answers} == {answers[0].body}
    assert answers[0].value == 11.0


def test_what_was_sent_before_the_end_was_known_is_answered(start: Callable[..., Server]) -> None:
    """A server that is asked to stop answers all that still arrives, pipelined requests included, and then closes."""
    server = start()
    with Client(server.rest_port) as begun, Client(server.rest_port) as pipelining:
        begun.send(post(4.0)[:-5])
        pipelining.send(post())
        assert pipelining.answer().status == 200
        burst = b"".join(post(float(number)) for number in range(100))
        pipelining.send(burst[:5])
        server.request_stop()
        while not server.data_plane.draining:
            time.sleep(0)
        pipelining.send(burst[5:])
        answers = [pipelining.answer() for _ in range(100)]
        assert [answer.value for answer in answers] == [number + 1 for number in range(100)]
        assert answers[-1].headers["connection"] == "close"
        assert pipelining.is_told_nothing_more()
        begun.send(post(4.0)[-5:])
        assert begun.answer().value == 5.0
        assert begun.is_told_nothing_more()
    server.wait()
    assert served(server) == 102


def test_a_server_that_is_terminated_ends_what_has_begun_and_then_itself(base_path: Path) -> None:
    """After SIGTERM new connections are refused, the request in progress is answered, and the exit code is 0."""
    flags = ["--model_name=tiny", f"--model_base_path={base_path}", "--ephemeral_ports", "--ports_file=-"]
    command = [sys.executable, "-m", "serving", *flags]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        port = json.loads(process.stdout.readline())["rest_port"]
        with Client(port) as client:
            client.send(head(f"Content-Length: {len(BODY)}", "Expect: 100-continue"))
            assert client.answer().status == 100
            process.terminate()
            while accepts_connections(port):
                time.sleep(0.01)
            client.send(BODY)
            assert client.answer().value == 6.0
            assert client.is_told_nothing_more()
        assert process.wait(TIMEOUT_SECONDS) == 0


def accepts_connections(port: int) -> bool:
    """Does anybody listen there?"""
    try:
        socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS).close()
    except ConnectionRefusedError:
        return False
    return True


class Refused(Exception):
    """The server did not take the request."""


class AskingUntilRefused(threading.Thread):
    """Counts whole answers and keeps whatever is neither a whole answer nor a refusal."""

    def __init__(self, ask: Callable[[], float]) -> None:
        super().__init__()
        self.count = 0
        self.wrong: list[object] = []
        self.answered = threading.Event()
        self._ask = ask

    def run(self) -> None:
        try:
            while (value := self._ask()) == 6.0:
                self.count += 1
                if self.count == WARM_ANSWERS:
                    self.answered.set()
            self.wrong.append(value)
        except Refused:
            pass
        except Exception as exc:
            self.wrong.append(exc)


def rest_asker(server: Server, rows: int) -> Callable[[], float]:
    """Asks over REST on one connection as long as the server keeps it."""
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=TIMEOUT_SECONDS)
    body = json.dumps({"instances": [[5.0, 0.0, 0.0, 0.0]] * rows})

    def ask() -> float:
        try:
            connection.request("POST", PREDICT, body)
            response = connection.getresponse()
        except REST_REFUSALS as exc:
            connection.close()
            raise Refused from exc
        predictions = json.loads(response.read())["predictions"]
        assert len(predictions) == rows
        return float(predictions[-1][0])

    return ask


def grpc_asker(server: Server, rows: int, refusals: Collection[grpc.StatusCode]) -> Callable[[], float]:
    """Asks over gRPC on one channel; these codes mean that the server did not take the request."""
    shape = wire.TensorShapeProto(dim=[wire.TensorShapeProto.Dim(size=rows), wire.TensorShapeProto.Dim(size=4)])
    tensor = wire.TensorProto(dtype=wire.DT_FLOAT, tensor_shape=shape, float_val=[5.0, 0.0, 0.0, 0.0] * rows)
    spec = wire.ModelSpec(name="tiny")
    request = wire.PredictRequest(model_spec=spec, inputs={"input": tensor}).SerializeToString()
    channel = grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}", [("grpc.enable_http_proxy", 0)])
    call: Callable[..., bytes] = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")

    def ask() -> float:
        try:
            content = call(request, timeout=TIMEOUT_SECONDS)
        except grpc.RpcError as exc:
            channel.close()
            if exc.code() in refusals:
                raise Refused from exc
            raise
        values = wire.PredictResponse.FromString(content).outputs["output"].float_val
        assert len(values) == rows * 3
        return float(values[-3])

    return ask


@pytest.mark.parametrize("rows", [1, 2_000])
@pytest.mark.parametrize("native_grpc", [True, False])
def test_no_request_that_was_accepted_is_lost_when_the_server_stops(
    start: Callable[..., Server], rows: int, native_grpc: bool
) -> None:
    """
    Clients on kept connections ask over both protocols until they are refused.

    They have exactly as many whole answers as the server has counted: none was cut off, and none was thrown away.
    What it had not begun, grpcio's own transport refuses as CANCELLED.
    """
    server = start(native_grpc=native_grpc)
    refusals = {grpc.StatusCode.UNAVAILABLE} | (set() if native_grpc else {grpc.StatusCode.CANCELLED})
    clients = [
        AskingUntilRefused(ask)
        for _ in range(CLIENTS_EACH)
        for ask in (rest_asker(server, rows), grpc_asker(server, rows, refusals))
    ]
    for client in clients:
        client.start()
    for client in clients:
        assert client.answered.wait(WARM_SECONDS)
    server.stop()
    for client in clients:
        client.join()
    assert [client.wrong for client in clients] == [[]] * len(clients)
    assert sum(client.count for client in clients) == served(server)
