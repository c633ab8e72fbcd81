"""Each client is a command that prints what a server says about iris."""

from __future__ import annotations

import os
import runpy
import socket
import subprocess
import sys
from collections.abc import Sequence

import pytest

from tests.clients.conftest import Served
from tests.processes import forked

CLIENTS = [("clients.rest_client", "rest_port"), ("clients.grpc_client", "grpc_port")]


def run(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``python -m …``, forked."""
    return forked(os.environ, run_module, module, arguments)


def run_module(module: str, arguments: Sequence[str]) -> None:
    sys.argv[1:] = arguments
    del sys.modules[module]  # as where nothing is imported yet
    runpy.run_module(module, run_name="__main__", alter_sys=True)


@pytest.mark.parametrize(("module", "port"), CLIENTS)
def test_asks_for_iris(served: Served, module: str, port: str) -> None:
    """Status, signatures, probabilities, classes and the response time are printed."""
    command = [sys.executable, "-m", module, "--host", "127.0.0.1", "--port", str(getattr(served, port))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "version 1 AVAILABLE" in done.stdout
    assert "classify_class: input float32 [-1, 4] -> class_id int64 [-1], class_name string [-1]" in done.stdout
    assert "[5.1, 3.5, 1.4, 0.2] -> output [1. 0. 0.]" in done.stdout
    assert "[5.1, 3.5, 1.4, 0.2] -> 0 setosa 1.0000" in done.stdout
    assert "Answer of version 1 in " in done.stdout


@pytest.mark.parametrize(("module", "port"), CLIENTS)
@pytest.mark.parametrize(("address", "version"), [(["--version", "2"], 2), (["--label", "stable"], 1)])
def test_asks_for_a_version(served: Served, module: str, port: str, address: list[str], version: int) -> None:
    """A version is asked for by number or by label; a model without class names is asked for its outputs alone."""
    done = run(module, "--port", str(getattr(served, port)), "--model", "tiny", *address)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"Answer of version {version} in " in done.stdout
    assert "Classes" not in done.stdout


@pytest.mark.parametrize("module", ["clients.rest_client", "clients.grpc_client"])
def test_nobody_listens(module: str) -> None:
    """Without a server there is one sentence on stderr and exit code 1."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        done = run(module, "--port", str(bound.getsockname()[1]))
    assert (done.returncode, done.stdout) == (1, "")
    assert "`hotswap serve`" in done.stderr
    assert done.stderr.count("\n") == 1


def test_version_and_label() -> None:
    """A version and a label at once are a usage error."""
    assert run("clients.rest_client", "--version", "1", "--label", "stable").returncode == 2
