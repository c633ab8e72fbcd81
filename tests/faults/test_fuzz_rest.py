"""Whatever arrives over REST is answered or refused, and nobody else notices."""

from __future__ import annotations

import http.client
import json
import select
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conformance.cases import content, read_cases
from tests.faults.bystander import undisturbed
from tests.faults.mutation import mutated
from tests.faults.server_process import ServerProcess, recorded_models, server_process

pytestmark = pytest.mark.xdist_group("fuzz-rest")

MAX_BODY_BYTES = 20_000
PATIENCE_SECONDS = 0.03
TIMEOUT_SECONDS = 5.0
ANSWERED = (200, 400, 404, 501)  # 501: a type that JSON cannot stand for


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except ValueError:
        return False
    return True


RECORDED = [
    (case.request, body)
    for case in read_cases("rest")
    if len(body := content(case.request)) <= MAX_BODY_BYTES and case.server == "main"
]
DOCUMENTS = [
    (request["path"], json.loads(body))
    for request, body in RECORDED
    if request["method"] == "POST" and body.startswith(b'{"') and _is_json(body)
]
NAMES = ["iris", "multi", "dtypes", "text", "scalar", "classify_regress", "with_defaults", "nobody", "%69ris", "100%25"]
VERSIONS = ["", "/versions/1", "/versions/99", "/versions/99999999999999999999", "/labels/stable", "/labels/%C3%A9"]
NUMBERS = st.sampled_from([0, -1, 1.5, 2**31, 2**63, 2**64, -(2**63), 1e308, 1e-320, float("nan"), float("inf")])

leaves = st.none() | st.booleans() | NUMBERS | st.integers() | st.floats() | st.text(max_size=8)
keys = st.sampled_from(["b64", "input", "x", "y", "a", "context", "examples"]) | st.text(max_size=4)
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(keys, inner, max_size=4), max_leaves=25
)
documents = (
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(("instances", "inputs", "examples", "context", "signature_name", "other"), values),
    )
    | values
)


@st.composite
def with_another_value(draw: st.DrawFn, document: Any) -> Any:
    """The document with one value, anywhere in it, replaced."""
    if not document or not isinstance(document, (dict, list)) or draw(st.integers(0, 5)) == 0:
        return draw(values)
    copied: Any = document.copy()
    key = draw(st.sampled_from(sorted(copied) if isinstance(copied, dict) else range(len(copied))))
    copied[key] = draw(with_another_value(copied[key]))
    return copied


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    root = tmp_path_factory.mktemp("fuzz")
    with server_process(root, *recorded_models(root)) as server:
        yield server


def framed(method: str, path: str, headers: dict[str, str], body: bytes) -> bytes:
    """A request whose length is right."""
    lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + body


def status_of(server: ServerProcess, sent: bytes, is_whole: bool) -> int:
    """
    The status of the answer, 0 where the connection is closed instead; it fails where neither comes in time.

    Args:
        is_whole: False where the request may be cut off, so that the server is told that no more will come.
    """
    with socket.create_connection(("127.0.0.1", server.rest_port), TIMEOUT_SECONDS) as connection:
        try:
            connection.sendall(sent)
            if not is_whole and not select.select([connection], [], [], PATIENCE_SECONDS)[0]:
                connection.shutdown(socket.SHUT_WR)
            with http.client.HTTPResponse(connection, method=sent[:5].split(b" ")[0].decode("latin-1")) as response:
                response.begin()
                response.read()
                return response.status
        except (http.client.RemoteDisconnected, ConnectionError):
            return 0


def test_any_json_is_answered(server: ServerProcess, fuzzing: settings) -> None:
    """A body of any JSON at all, on any path, is answered, and never by an error of the server."""

    @fuzzing
    @given(
        st.sampled_from(NAMES),
        st.sampled_from(VERSIONS),
        st.sampled_from(["predict", "classify", "regress", "PREDICT", "other"]),
        documents,
    )
    def holds(name: str, version: str, verb: str, document: Any) -> None:
        sent = framed("POST", f"/v1/models/{name}{version}:{verb}", {}, json.dumps(document).encode())
        assert status_of(server, sent, is_whole=True) in ANSWERED, sent

    with undisturbed(server.url("iris")):
        holds()
    assert not server.complaints()


def test_any_value_may_stand_in_for_another(server: ServerProcess, fuzzing: settings) -> None:
    """A real body with one of its values replaced by any other is answered, and never by an error of the server."""

    @fuzzing
    @given(st.data())
    def holds(data: st.DataObject) -> None:
        path, document = data.draw(st.sampled_from(DOCUMENTS))
        sent = framed("POST", path, {}, json.dumps(data.draw(with_another_value(document))).encode())
        assert status_of(server, sent, is_whole=True) in ANSWERED, sent

    with undisturbed(server.url("iris")):
        holds()
    assert not server.complaints()


def test_any_method_path_and_header_is_answered(server: ServerProcess, fuzzing: settings) -> None:
    """So is any method, path and header."""
    texts = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=30)
    paths = texts | st.builds("/v1/models/{}{}{}".format, st.sampled_from(NAMES), st.sampled_from(VERSIONS), texts)
    methods = st.sampled_from(["GET", "POST"]) | st.sampled_from(["HEAD", "PUT", "OPTIONS", "PATCH", "TRACE", "get"])
    names = st.sampled_from(["Content-Type", "Content-Encoding", "Expect", "Upgrade", "Connection", "Origin", "Accept"])
    tokens = st.sampled_from(["gzip", "100-continue", "websocket", "h2c", "close", "keep-alive", "http://a"]) | texts
    headers = st.dictionaries(names, tokens, max_size=4)

    @fuzzing
    @given(methods, paths, headers, st.binary(max_size=40))
    def holds(method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        sent = framed(method, path, headers, body)
        assert status_of(server, sent, is_whole=False) != 500, sent

    with undisturbed(server.url("iris")):
        holds()
    assert not server.complaints()


def test_a_recorded_body_may_come_to_any_harm(server: ServerProcess, fuzzing: settings) -> None:
    """A real body with bytes changed, lost or doubled is answered, and never by an error of the server."""

    @fuzzing
    @given(st.data())
    def holds(data: st.DataObject) -> None:
        request, body = data.draw(st.sampled_from(RECORDED))
        headers = {name: text for name, text in request.get("headers", {}).items() if name != "Transfer-Encoding"}
        harmed = data.draw(mutated(body))
        sent = framed(request["method"], request["path"], headers, harmed)
        assert status_of(server, sent, is_whole=True) in ANSWERED, sent

    with undisturbed(server.url("iris")):
        holds()
    assert not server.complaints()


def test_a_recorded_request_may_come_to_any_harm(server: ServerProcess, fuzzing: settings) -> None:
    """A request that is harmed anywhere, its length included, is answered or its connection is closed."""

    @fuzzing
    @given(st.data())
    def holds(data: st.DataObject) -> None:
        request, body = data.draw(st.sampled_from(RECORDED))
        whole = framed(request["method"], request["path"], request.get("headers", {}), body)
        sent = data.draw(mutated(whole))
        assert status_of(server, sent, is_whole=False) != 500, sent

    with undisturbed(server.url("iris")):
        holds()
    assert not server.complaints()
