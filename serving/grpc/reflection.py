"""
Offers gRPC server reflection, which tells clients without the ``.proto`` files what can be called.

``grpcurl`` and the like ask it first. Versions v1 and v1alpha differ in the name of their
package alone, so one servicer speaks both.

Source: grpc/reflection/v1/reflection.proto, grpc/reflection/v1alpha/reflection.proto
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection import aio
from tensorflow_serving.apis import model_service_pb2, prediction_service_pb2

from serving.access import Access, Role, require

_VERSIONS = ("grpc.reflection.v1", "grpc.reflection.v1alpha")
_FILES = (prediction_service_pb2, model_service_pb2, health_pb2, reflection_pb2)


class Reflection(aio.ReflectionServicer):  # type: ignore[misc]  # it ships no types
    """
    ``ServerReflection`` for these services and for itself.

    Args:
        services: Their full names.
        access: Who may ask.
    """

    def __init__(self, services: Iterable[str], access: Access) -> None:
        super().__init__([*services, *(f"{version}.ServerReflection" for version in _VERSIONS)], _described())
        self._access = access
        self._ended = asyncio.Event()

    def add_to(self, server: Any) -> None:
        """Offer it on a server that has not started."""
        handler: Any = grpc.stream_stream_rpc_method_handler(
            self._answers,
            reflection_pb2.ServerReflectionRequest.FromString,
            reflection_pb2.ServerReflectionResponse.SerializeToString,
        )
        for version in _VERSIONS:
            server.add_registered_method_handlers(f"{version}.ServerReflection", {"ServerReflectionInfo": handler})

    async def end(self) -> None:
        """Answer no more questions: a server that stops would wait for whoever is still connected."""
        self._ended.set()

    async def _answers(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        await require(self._access, context, Role.PREDICT)
        async for answer in self.ServerReflectionInfo(self._until_ended(requests), context):
            yield answer

    async def _until_ended(self, requests: Any) -> AsyncIterator[Any]:
        questions = aiter(requests)
        ended = asyncio.ensure_future(self._ended.wait())
        try:
            while not self._ended.is_set():
                question = asyncio.ensure_future(anext(questions, None))
                await asyncio.wait([question, ended], return_when=asyncio.FIRST_COMPLETED)
                if not question.done():
                    question.cancel()
                    return
                if (request := question.result()) is None:
                    return
                yield request
        finally:
            ended.cancel()


def _described() -> Any:
    """All files that the services are described in."""
    pool, seen = descriptor_pool.DescriptorPool(), set[str]()
    for module in _FILES:
        _add(module.DESCRIPTOR, pool, seen)
    pool.AddSerializedFile(_renamed(reflection_pb2.DESCRIPTOR).SerializeToString())
    return pool


def _add(file: Any, pool: Any, seen: set[str]) -> None:
    """Put a file into a pool, after all that it imports."""
    if file.name in seen:
        return
    seen.add(file.name)
    for each in file.dependencies:
        _add(each, pool, seen)
    pool.AddSerializedFile(file.serialized_pb)


def _renamed(file: Any) -> Any:
    """The description of v1, made from that of v1alpha: grpcio-reflection has no other."""
    proto = descriptor_pb2.FileDescriptorProto.FromString(file.serialized_pb)
    return text_format.Parse(text_format.MessageToString(proto).replace("v1alpha", "v1"), type(proto)())
