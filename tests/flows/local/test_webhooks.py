"""``POST /webhooks/mlflow``: only what MLflow has signed just now wakes a reconcile turn."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from mlflow.webhooks.delivery import _generate_hmac_signature as signed_by_mlflow

from flows.local.operator_http import answering
from flows.local.webhooks import PATH, Deliveries, Refused, secret, signature_of
from flows.settings import InvalidSettings, Settings
from tests.ports import free_ports

SECRET = "a secret that both know"
BODY = json.dumps({"entity": "model_version_alias", "action": "created", "data": {"name": "iris", "alias": "champion"}})


class Operator:
    """The operator's port, and the models that were woken."""

    def __init__(self, url: str, woken: list[str]) -> None:
        self._url = url
        self.woken = woken

    def post(self, delivery: str = "1", sent: float | None = None, body: str = BODY, key: str = SECRET) -> int:
        """The status for a message that is signed with `key`."""
        at = str(int(time.time() if sent is None else sent))
        headers = {
            "X-MLflow-Delivery-Id": delivery,
            "X-MLflow-Timestamp": at,
            "X-MLflow-Signature": f"v1,{signature_of(key, delivery, at, body.encode())}",
        }
        return self.post_as(headers, body)

    def post_as(self, headers: dict[str, str], body: str = BODY) -> int:
        return requests.post(f"{self._url}{PATH}", data=body.encode(), headers=headers, timeout=10).status_code


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    directory = tmp_path_factory.mktemp("operator")
    (directory / "secret").write_text(f"{SECRET}\n")
    (port,) = free_ports(1)
    settings = Settings(
        home=directory, models_repo=directory / "models", operator_port=port, webhook_secret_file=directory / "secret"
    )
    woken: list[str] = []
    with answering(settings, woken.append):
        yield Operator(f"http://127.0.0.1:{port}", woken)


def test_a_signed_message_wakes_its_model_once(operator: Operator) -> None:
    """The same delivery again is refused, as somebody may have listened."""
    operator.woken.clear()
    assert operator.post("first") == 200
    assert operator.woken == ["iris"]
    assert operator.post("first") == 401
    assert operator.woken == ["iris"]


@pytest.mark.parametrize(
    "how",
    [{"key": "another secret"}, {"sent": time.time() - 3600}, {"sent": time.time() + 3600}],
    ids=["another secret", "an hour ago", "in an hour"],
)
def test_what_is_signed_otherwise_or_at_another_time_is_refused(operator: Operator, how: dict[str, Any]) -> None:
    """Nothing is woken."""
    operator.woken.clear()
    assert operator.post("second", **how) == 401
    assert operator.woken == []


def test_what_was_changed_on_its_way_is_refused(operator: Operator) -> None:
    """The signature is of the body, the time and the id."""
    at = str(int(time.time()))
    signature = f"v1,{signature_of(SECRET, 'third', at, BODY.encode())}"
    headers = {"X-MLflow-Delivery-Id": "third", "X-MLflow-Timestamp": at, "X-MLflow-Signature": signature}
    assert operator.post_as(headers, BODY.replace("iris", "digits")) == 401
    assert operator.post_as({**headers, "X-MLflow-Delivery-Id": "fourth"}) == 401
    assert operator.post_as({}) == 401
    assert operator.post_as(headers) == 200


def test_other_messages_of_mlflow_are_accepted_and_change_nothing(operator: Operator) -> None:
    """Such as its test message, or one about a tag."""
    operator.woken.clear()
    assert operator.post("fifth", body='{"entity": "model_version_tag", "data": {"name": "iris"}}') == 200
    assert operator.post("sixth", body="no JSON") == 200
    assert operator.woken == []


def test_a_large_message_is_not_read(operator: Operator) -> None:
    """Whoever sends it has not signed it yet."""
    assert operator.post_as({}, "x" * 100_000) == 413


def test_the_signature_is_that_of_mlflow() -> None:
    """As the MLflow that is installed makes it."""
    assert signed_by_mlflow(SECRET, "id", "17", BODY) == f"v1,{signature_of(SECRET, 'id', '17', BODY.encode())}"


def test_a_delivery_is_forgotten_when_its_time_alone_refuses_it() -> None:
    """So that what is remembered stays small."""
    now = 1_000_000.0
    deliveries = Deliveries(SECRET, lambda: now)
    for number in range(3):
        now += 400.0
        at = str(int(now))
        headers = {"x-mlflow-delivery-id": "one", "x-mlflow-timestamp": at}
        headers["x-mlflow-signature"] = f"v1,{signature_of(SECRET, 'one', at, b'')}"
        if number == 1:
            with pytest.raises(Refused, match="before"):
                deliveries.check(headers, b"")
        else:
            deliveries.check(headers, b"")


def test_a_home_gets_a_secret_that_nobody_else_can_read(tmp_path: Path) -> None:
    """It is made once; a file that is named and empty is refused."""
    settings = Settings(home=tmp_path)
    assert len(made := secret(settings)) > 20
    assert secret(settings) == made
    assert (tmp_path / "webhook-secret").stat().st_mode & 0o777 == 0o600
    (tmp_path / "empty").touch()
    with pytest.raises(InvalidSettings, match="is empty"):
        secret(settings.model_copy(update={"webhook_secret_file": tmp_path / "empty"}))
