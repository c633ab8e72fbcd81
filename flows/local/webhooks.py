"""
``POST /webhooks/mlflow``: MLflow says that an alias was moved, so that its label follows at once.

MLflow signs what it sends (its ``X-MLflow-Signature``, as Standard Webhooks have it): HMAC-SHA256 of delivery id, time
and body. Nothing of the message is believed but the model's name, and nothing is done but a reconcile turn, which looks
at the registry itself.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import os
import secrets
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path

import requests
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from flows.settings import InvalidSettings, Settings

log = logging.getLogger(__name__)

PATH = "/webhooks/mlflow"
_ALIAS = "model_version_alias"
_TOLERATED_SECONDS = 300.0
_MAX_BODY_BYTES = 1 << 16
_TIMEOUT_SECONDS = 10.0
_NAME = "hotswap"


class Refused(Exception):
    """A message that is not, or not certainly, of MLflow."""


class Deliveries:
    """Checks signatures, and remembers what was delivered, so that nothing is accepted twice."""

    def __init__(self, secret: str, now: Callable[[], float] = time.time) -> None:
        self._secret = secret
        self._now = now
        self._accepted: dict[str, float] = {}
        """by delivery id, when"""

    def check(self, headers: Mapping[str, str], body: bytes) -> None:
        """
        Raises:
            Refused: It is not signed with the secret, is too old or too new, or came before.
        """
        delivery, sent = headers.get("x-mlflow-delivery-id", ""), headers.get("x-mlflow-timestamp", "")
        version, _, signature = headers.get("x-mlflow-signature", "").partition(",")
        expected = signature_of(self._secret, delivery, sent, body)
        if version != "v1" or not hmac.compare_digest(expected.encode(), signature.encode()):
            raise Refused("the signature is not of this secret")
        now = self._now()
        if not (sent.isascii() and sent.isdecimal()) or abs(now - float(sent)) > _TOLERATED_SECONDS:
            raise Refused("it was sent too long ago, or the clocks differ")
        self._accepted = {each: at for each, at in self._accepted.items() if now - at < 2 * _TOLERATED_SECONDS}
        if delivery in self._accepted:
            raise Refused("it was delivered before")
        self._accepted[delivery] = now


def signature_of(secret: str, delivery: str, sent: str, body: bytes) -> str:
    """What MLflow signs a message with, base64."""
    signed = f"{delivery}.{sent}.".encode() + body
    return base64.b64encode(hmac.new(secret.encode(), signed, hashlib.sha256).digest()).decode()


def secret(settings: Settings) -> str:
    """
    The secret of the file that the settings name, or else of one in the home, which is made where it is missing.

    Raises:
        InvalidSettings: The file cannot be read or written, or is empty.
    """
    path = settings.webhook_secret_file or settings.home.absolute() / "webhook-secret"
    try:
        if settings.webhook_secret_file is None and not path.exists():
            _write(path)
        found = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise InvalidSettings(f"The secret of MLflow's webhooks cannot be read from {path}: {exc}") from exc
    if not found:
        raise InvalidSettings(f"The secret of MLflow's webhooks in {path} is empty: write one into it")
    return found


def route(settings: Settings, wake: Callable[[str], None]) -> Route:
    """What answers MLflow; `wake` gets the name of a model whose alias was moved."""
    deliveries = Deliveries(secret(settings))

    async def receive(request: Request) -> Response:
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > _MAX_BODY_BYTES:
                return PlainTextResponse("too large\n", HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        try:
            deliveries.check(request.headers, body)
        except Refused as exc:
            log.warning("webhook refused: %s", exc)
            return PlainTextResponse(f"refused: {exc}\n", HTTPStatus.UNAUTHORIZED)
        if (model := _model(body)) is not None:
            log.info("alias moved in MLflow model=%s", model)
            wake(model)
        return PlainTextResponse("ok\n")

    return Route(PATH, receive, methods=["POST"])


def subscribe(settings: Settings) -> None:
    """
    Let the MLflow of `hotswap up` tell the operator of moved aliases, in the place of what it was told to before.

    Raises:
        requests.RequestException: It does not answer, or refuses.
    """
    webhooks = f"http://{settings.url_host}:{settings.mlflow_port}/api/2.0/mlflow/webhooks"
    login = settings.login
    with requests.Session() as session:
        session.auth = None if login is None else (login.user, login.password)
        known = session.get(webhooks, timeout=_TIMEOUT_SECONDS)
        known.raise_for_status()
        for each in known.json().get("webhooks", []):
            if each["name"] == _NAME:
                session.delete(f"{webhooks}/{each['webhook_id']}", timeout=_TIMEOUT_SECONDS).raise_for_status()
        wanted = {
            "name": _NAME,
            "description": "Labels follow their aliases at once.",
            "url": f"http://{settings.url_host}:{settings.operator_port}{PATH}",
            "events": [{"entity": _ALIAS.upper(), "action": action} for action in ("CREATED", "DELETED")],
            "secret": secret(settings),
            "status": "ACTIVE",
        }
        session.post(webhooks, json=wanted, timeout=_TIMEOUT_SECONDS).raise_for_status()


def mlflow_environment(settings: Settings) -> dict[str, str]:
    """
    Variables of ``mlflow server``, so that it may call the operator on this machine, and keeps the secret encrypted.

    MLflow would else forget at each start how to read the secret.
    """
    key = base64.urlsafe_b64encode(hashlib.sha256(secret(settings).encode()).digest()).decode()
    wanted = {
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": key,
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "https,http",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
    }
    return {name: value for name, value in wanted.items() if name not in os.environ}


def _model(body: bytes) -> str | None:
    """The model whose alias a message is about; None for one about something else."""
    try:
        told = json.loads(body)
        return str(told["data"]["name"]) if told["entity"] == _ALIAS else None
    except (ValueError, KeyError, TypeError):
        return None


def _write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(f"{secrets.token_urlsafe(32)}\n", "utf-8")
