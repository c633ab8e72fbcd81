"""Ragged and sparse tensors in a signature: clients show them, and say in words why they cannot be asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from clients.client import PredictClient
from clients.grpc_client import GrpcClient
from clients.rest_client import RestClient
from serving.protocol.errors import ServingError
from tests.conformance.cases import MODELS


@pytest.fixture(params=[GrpcClient, RestClient])
def client(request: pytest.FixtureRequest, model_server: Any, tmp_path: Any) -> Iterator[PredictClient]:
    """Asks a server of models with all forms of tensors."""
    entry = "config {{ name: '{0}' base_path: '{1}/{0}' model_platform: 'tensorflow' }}"
    names = ("ragged_default", "ragged_in", "sparse")
    config = tmp_path / "models.config"
    config.write_text("model_config_list { " + " ".join(entry.format(name, MODELS) for name in names) + " }")
    server = model_server(model_config_file=config)
    is_rest = request.param is RestClient
    address = f"http://127.0.0.1:{server.rest_port}" if is_rest else f"127.0.0.1:{server.grpc_port}"
    with request.param(address) as client:
        yield client


def test_metadata_tell_which_tensors_are_none_that_can_be_sent(client: PredictClient) -> None:
    """They have no name; a ragged one has no type of array either."""
    found = client.metadata("sparse").signature("mixed").outputs
    assert (found["sp"].name, found["sp"].dtype, found["sp"].shape) == ("", np.dtype(np.float32), (-1, 3))
    assert (found["rows"].name, found["rows"].dtype, found["rows"].shape) == ("rows:0", np.dtype(np.float32), (-1,))
    ragged = client.metadata("ragged_in").signature("").inputs["r"]
    assert (ragged.name, ragged.dtype, ragged.shape) == ("", None, None)


@pytest.mark.parametrize(
    ("model", "signature", "rows"),
    [("ragged_default", "", ["a b"]), ("sparse", "", [[1.0, 0.0, 2.0]]), ("sparse", "sparse_in", [[1.0, 0.0, 2.0]])],
)
def test_what_cannot_be_asked_for_is_reported_in_words(
    client: PredictClient, model: str, signature: str, rows: Any
) -> None:
    """The server's text is TensorFlow's own, so a client explains it."""
    with pytest.raises(ServingError, match=r"is sparse or ragged.*ask another signature"):
        client.predict(model, rows, signature_name=signature)


def test_other_signatures_of_such_a_model_answer(client: PredictClient) -> None:
    """Dense ones are as ever."""
    assert client.predict("ragged_default", ["a bc"], signature_name="length").outputs["n"].tolist() == [4]
    assert client.predict("sparse", [[1.0, 0.0, 2.0]], signature_name="plain").outputs["rows"].tolist() == [3.0]
