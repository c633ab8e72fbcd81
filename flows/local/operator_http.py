"""
The operator's HTTP port: whether it lives, and the metrics of the pipeline.

Each part of the operator that answers over HTTP adds its route to `routes`.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus

import uvicorn
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from flows.local import webhooks
from flows.local.exposure import check_pages
from flows.logins import Login
from flows.monitoring.exposition import Exposition
from flows.settings import Settings


def routes(settings: Settings, wake: Callable[[str], None] | None = None) -> list[Route]:
    """What is answered; `wake` gets the name of a model whose alias was moved in MLflow."""
    exposition = Exposition(settings)

    def healthz(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    def metrics(request: Request) -> Response:
        return Response(exposition.page(), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    hooks = [webhooks.route(settings, wake)] if wake else []
    return [Route("/healthz", healthz), Route("/metrics", metrics), *hooks]


def with_login(app: ASGIApp, login: Login | None) -> ASGIApp:
    """The same, answering only who has the login; health is for everybody, and a webhook has a signature of its own."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        is_open = scope["type"] != "http" or scope["path"] == "/healthz" or scope["path"].startswith("/webhooks/")
        if login is None or is_open or login.fits(Headers(scope=scope).get("authorization", "")):
            await app(scope, receive, send)
            return
        challenge = {"WWW-Authenticate": 'Basic realm="hotswap"'}
        await PlainTextResponse("Log in\n", HTTPStatus.UNAUTHORIZED, challenge)(scope, receive, send)

    return answer


@contextmanager
def answering(settings: Settings, wake: Callable[[str], None] | None = None) -> Iterator[None]:
    """
    Answer during the block, in a thread; without `wake` no webhook.

    Raises:
        OSError: It cannot listen on its port.
        InvalidSettings: Strangers would reach it.
    """
    check_pages(settings)
    app = with_login(Starlette(routes=routes(settings, wake)), settings.login)
    config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.create_server((settings.host, settings.operator_port), family=family) as listening:
        thread = threading.Thread(target=server.run, args=([listening],), name="operator http")
        thread.start()
        try:
            yield
        finally:
            server.should_exit = True
            thread.join()
