"""Offers ``grpc.health.v1.Health``, which says that everything is serving until the server stops."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2

_NAMES = ("", "ModelService", "PredictionService")


async def serving_health() -> Health:
    """The service, with all names serving."""
    servicer = Health()
    for name in _NAMES:
        await servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    return servicer


class Health(health.aio.HealthServicer):  # type: ignore[misc]  # it ships no types
    """``grpc.health.v1.Health``: serving, until `end`."""

    def __init__(self) -> None:
        super().__init__()
        self._ended = asyncio.Event()

    async def end(self) -> None:
        """Report nothing as serving from now on, and end every watch."""
        await self.enter_graceful_shutdown()
        self._ended.set()

    async def Watch(self, request: Any, context: Any) -> None:  # noqa: N802  (the name in health.proto)
        watching = asyncio.create_task(super().Watch(request, context))
        ending = asyncio.create_task(self._ended.wait())
        try:
            await asyncio.wait([watching, ending], return_when=asyncio.FIRST_COMPLETED)
        finally:
            watching.cancel()
            ending.cancel()
        await context.abort(grpc.StatusCode.UNAVAILABLE, "Server is shutting down")

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802  (the name in health.proto)
        if request.service not in _NAMES:
            await context.abort(grpc.StatusCode.NOT_FOUND, "service name unknown")
        return await super().Check(request, context)
