"""Over both gRPC transports the server answers what TensorFlow Serving answered."""

from __future__ import annotations

import pytest

from tests.conformance.cases import Case, content
from tests.conformance.compare import grpc_difference
from tests.conformance.conftest import recorded
from tests.conformance.launch import Client


@pytest.mark.parametrize(("client", "case"), recorded("grpc"), indirect=["client"], scope="module")
def test_native_grpc(client: Client, case: Case, strict: bool) -> None:
    """The answer is the recorded one."""
    check(client, case, strict)


@pytest.mark.parametrize(("client", "case"), recorded("grpc", native_grpc=False), indirect=["client"], scope="module")
def test_grpcio(client: Client, case: Case, strict: bool) -> None:
    """The answer is the recorded one."""
    check(client, case, strict)


def check(client: Client, case: Case, strict: bool) -> None:
    """Ask, and compare."""
    answer = client.grpc(case.request["method"], content(case.request, "message"), case.timeout)
    found = grpc_difference(case, answer, strict)
    assert not found
