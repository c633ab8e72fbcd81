"""Turns errors into the status of a call, and versions into its trailer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from serving.inference.monitoring import Metrics
from serving.protocol.errors import ServingError

MAX_MESSAGE_BYTES = 1024
MAX_INLINE_READ_BYTES = 2**20

Trailer = tuple[tuple[str, str], ...]
Method = Callable[[Any, Any], Awaitable[Any]]
"""From a request message and the context of the call to a response message."""
Handler = Callable[[bytes, Any], Awaitable[Any]]
"""The same from bytes to bytes."""


def handler_of(method: Method, message: type[Any], api: str = "", metrics: Metrics | None = None) -> Handler:
    """
    A handler that reads the request itself and turns errors into the status that TensorFlow Serving gives.

    Args:
        api: What the metrics call the method; those without metrics are not counted.
    """

    async def handle(content: bytes, context: Any) -> Any:
        started = time.perf_counter()
        model = ""
        try:
            if len(content) <= MAX_INLINE_READ_BYTES:
                request = message.FromString(content)
            else:
                request = await asyncio.to_thread(message.FromString, content)
            if metrics is not None:
                model = request.model_spec.name
            response = await method(request, context)
        except ServingError as exc:
            if metrics is not None:
                metrics.count_failure(model, exc.code.name)
            return await context.abort(exc.code, shortened(exc.message))
        except DecodeError:
            return await context.abort(grpc.StatusCode.INTERNAL, "")
        if metrics is not None:
            metrics.count_answer(model, api, "GRPC", time.perf_counter() - started)
        return response.SerializeToString()

    return handle


def shortened(message: str) -> str:
    """A message cut off where TensorFlow Serving cuts it off."""
    content = message.encode("utf-8", "surrogateescape")
    if len(content) <= MAX_MESSAGE_BYTES:
        return message
    return content[:MAX_MESSAGE_BYTES].decode("utf-8", "ignore") + "...TRUNCATED"


def version_trailer(version: int) -> Trailer:
    """Which version gave the answer."""
    return (("model-version", str(version)),)
