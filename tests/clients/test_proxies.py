"""A proxy that the environment names is asked for other machines only."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from clients.grpc_client import GrpcClient
from clients.proxies import is_local_target, is_loopback
from clients.rest_client import RestClient
from serving.protocol.errors import HotswapError
from tests.clients.conftest import Served

VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
ROWS = np.zeros((1, 4), np.float32)


@pytest.fixture
def no_exceptions(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def dead_proxy(no_exceptions: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every variable names a proxy where nobody listens."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "http://127.0.0.1:9")


@pytest.fixture
def proxy(no_exceptions: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A proxy that refuses everything; the first line of each request."""
    asked: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def refuse() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    asked.append(connection.recv(65536).decode("latin-1").partition("\r\n")[0])
                    connection.sendall(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")

        threading.Thread(target=refuse, daemon=True).start()
        for name in VARIABLES:
            monkeypatch.setenv(name, f"http://127.0.0.1:{listening.getsockname()[1]}")
        yield asked
        listening.shutdown(socket.SHUT_RDWR)


@pytest.mark.usefixtures("dead_proxy")
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_server_on_this_machine_is_asked_straight(host: str, served: Served) -> None:
    """Over both protocols, by address and by name."""
    with RestClient(f"http://{host}:{served.rest_port}") as rest, GrpcClient(f"{host}:{served.grpc_port}") as grpc:
        for client in (rest, grpc):
            assert client.predict("tiny", {"input": ROWS}, version=1).outputs["output"].tolist() == [[1, 1, 1]]


def test_another_machine_is_asked_through_the_proxy(proxy: list[str]) -> None:
    """As everybody's clients do, over both protocols."""
    with RestClient("http://model.invalid:8501", 2.0) as rest, pytest.raises(HotswapError):
        rest.status("tiny")
    with GrpcClient("model.invalid:8500", 2.0) as grpc, pytest.raises(HotswapError):
        grpc.status("tiny")
    assert any(line.startswith("GET http://model.invalid:8501/v1/models/tiny") for line in proxy)
    assert any(line.startswith("CONNECT model.invalid:8500") for line in proxy)


def test_an_exception_of_the_environment_counts(proxy: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """``no_proxy`` names another machine that is asked straight."""
    monkeypatch.setenv("no_proxy", "model.invalid")
    with RestClient("http://model.invalid:8501", 1.0) as rest, pytest.raises(HotswapError):
        rest.status("tiny")
    assert proxy == []


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "127.8.9.1", "::1", "[::1]"])
def test_names_of_this_machine(host: str) -> None:
    """All of 127.0.0.0/8 is this machine, and so is the address that means all of its own."""
    assert is_loopback(host)
    assert is_loopback("0.0.0.0")


@pytest.mark.parametrize("host", ["10.0.0.1", "localhost.example", "example.org", "", "::2"])
def test_names_of_other_machines(host: str) -> None:
    """What only looks like this machine is another one."""
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("target", "local"),
    [
        ("127.0.0.1:8500", True),
        ("[::1]:8500", True),
        ("unix:/run/hotswap.sock", True),
        ("unix-abstract:hotswap", True),
        ("dns:///localhost:8500", True),
        ("ipv4:127.0.0.1:8500", True),
        ("dns:///model.example:8500", False),
        ("10.0.0.1:8500", False),
        ("model.example", False),
    ],
)
def test_targets_on_this_machine(target: str, local: bool) -> None:
    """Every form of a gRPC target that names a host."""
    assert is_local_target(target) is local


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, "localhost,127.0.0.1,::1,10.0.0.9"),
        ({"NO_PROXY": "example.org"}, "example.org,localhost,127.0.0.1,::1,10.0.0.9"),
        ({"no_proxy": "localhost, .lan"}, "localhost,.lan,127.0.0.1,::1,10.0.0.9"),
        ({"no_proxy": "*"}, "*"),
    ],
)
def test_exceptions_are_added_to_those_of_the_user(before: dict[str, str], after: str) -> None:
    """In both spellings, as each library reads another one first; twice is as once."""
    program = (
        "import os; from clients.proxies import go_straight_to; go_straight_to('10.0.0.9'); "
        "go_straight_to('10.0.0.9'); print(os.environ['no_proxy'], os.environ['NO_PROXY'])"
    )
    kept = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"}
    done = subprocess.run(
        [sys.executable, "-c", program], env={**kept, **before}, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == [after, after]
