"""Servers for the recorded cases."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.cases import read_cases, read_setups
from tests.conformance.launch import Client, running


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--conformance-strict", action="store_true", help="compare bytes everywhere")


@pytest.fixture(scope="session")
def strict(request: pytest.FixtureRequest) -> bool:
    """Do the bytes of every answer have to agree?"""
    return bool(request.config.getoption("--conformance-strict", default=False))


@pytest.fixture(scope="module")
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Asks a server; its parameter is the name of a setup and whether the native gRPC transport is wanted."""
    setup, native_grpc = request.param
    with running(read_setups()[setup], tmp_path_factory.mktemp(setup), native_grpc) as client:
        yield client


def recorded(protocol: str, transport: str = "native") -> list[object]:
    """
    Parameters ``client`` and ``case``; `transport` is the one of gRPC.

    Cases of one server follow each other and share one parameter, so that pytest starts it once; in a parallel run
    they stay with one worker. All cases of a protocol belong to one test function: of two functions pytest would put
    the cases of the same place next to each other, and start a server for each.
    """
    cases = sorted(read_cases(protocol), key=lambda case: case.server)
    servers = {case.server: (case.server, transport == "native") for case in cases}
    return [
        pytest.param(
            servers[case.server],
            case,
            id=f"{case.id}-{transport}" if protocol == "grpc" else case.id,
            marks=pytest.mark.xdist_group(f"{protocol}-{case.server}-{transport}"),
        )
        for case in cases
    ]
