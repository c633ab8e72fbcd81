"""Over both gRPC transports the server answers what TensorFlow Serving answered."""

from __future__ import annotations

import pytest

from tests.conformance.cases import Case, content
from tests.conformance.compare import grpc_difference
from tests.conformance.conftest import recorded
from tests.conformance.launch import Client

BOTH = recorded("grpc", "native") + recorded("grpc", "grpcio")


@pytest.mark.parametrize(("client", "case"), BOTH, indirect=["client"], scope="module")
def test_grpc(client: Client, case: Case, strict: bool) -> None:
    """The answer is the recorded one."""
    answer = client.grpc(case.request["method"], content(case.request, "message"), case.timeout)
    found = grpc_difference(case, answer, strict)
    assert not found
