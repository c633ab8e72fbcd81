"""
The operator's HTTP port: whether it lives, and the metrics of the pipeline.

Each part of the operator that answers over HTTP adds its route to `routes`.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from flows.monitoring.exposition import Exposition
from flows.settings import Settings


def routes(settings: Settings) -> list[Route]:
    """What is answered."""
    exposition = Exposition(settings)

    def healthz(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    def metrics(request: Request) -> Response:
        return Response(exposition.page(), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return [Route("/healthz", healthz), Route("/metrics", metrics)]


@contextmanager
def answering(settings: Settings) -> Iterator[None]:
    """
    Answer during the block, in a thread.

    Raises:
        OSError: It cannot listen on its port.
    """
    app = Starlette(routes=routes(settings))
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
