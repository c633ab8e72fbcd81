"""Over REST the server answers what TensorFlow Serving answered."""

from __future__ import annotations

import pytest

from tests.conformance.cases import Case
from tests.conformance.compare import rest_difference
from tests.conformance.conftest import recorded
from tests.conformance.launch import Client


@pytest.mark.parametrize(("client", "case"), recorded("rest"), indirect=["client"], scope="module")
def test_rest(client: Client, case: Case, strict: bool) -> None:
    """The answer is the recorded one."""
    found = rest_difference(case, client.rest(case.request, case.timeout), strict)
    assert not found
