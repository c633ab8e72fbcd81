"""Quick handlers answer their methods, usual ones the others; this also fails when pygrpc-native changes."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

pytest.importorskip("pygrpc_native")

from serving.access import Access
from serving.grpc.quick_grpc import QuickCall, QuickServer
from serving.grpc.reflection import Reflection

METHOD, USUAL_METHOD = "/test.Echo/Say", "/test.Echo/Repeat"
TIMEOUT_SECONDS = 30
VERSION = (("model-version", "7"),)


async def usual(request: bytes, context: Any) -> bytes:
    return b"usual " + request


def quick(request: bytes, call: QuickCall) -> None:
    """Fails requests that end with x; answers others at the end of the turn."""
    if request == b"raise":
        raise RuntimeError("a bug in the handler")
    if request.endswith(b"x"):
        call.fail(grpc.StatusCode.DATA_LOSS, "sórry", VERSION)
    else:
        asyncio.get_running_loop().call_soon(call.succeed, b"quick " + request, VERSION)


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[QuickServer, Any, Any]]:
    """A server, what asks its quick method, and what asks its usual one."""
    server = QuickServer([])
    handlers: dict[str, Any] = {name: grpc.unary_unary_rpc_method_handler(usual) for name in ("Say", "Repeat")}
    server.add_registered_method_handlers("test.Echo", handlers)
    server.add_quick_handler(METHOD, quick)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        await channel.channel_ready()
        yield server, channel.unary_unary(METHOD), channel.unary_unary(USUAL_METHOD)
    await server.stop(None)


def test_each_method_is_answered_by_its_handler() -> None:
    """Answers and errors carry their trailer."""

    async def main() -> None:
        async with serving() as (server, ask, ask_usual):
            assert await asyncio.gather(*map(ask, (b"a", b""))) == [b"quick a", b"quick "]
            assert await asyncio.gather(*map(ask_usual, (b"a", b""))) == [b"usual a", b"usual "]
            many = [b"q%d" % number for number in range(200)]
            assert await asyncio.gather(*map(ask, many)) == [b"quick " + request for request in many]
            call = ask(b"q")
            assert dict(await call.trailing_metadata()) == dict(VERSION)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await ask(b"qx")
            error = caught.value
            assert (error.code(), error.details()) == (grpc.StatusCode.DATA_LOSS, "sórry")
            assert dict(error.trailing_metadata()) == dict(VERSION)
            with pytest.raises(grpc.aio.AioRpcError, match="RuntimeError: a bug in the handler"):
                await ask(b"raise")
            assert not server.open_quick_calls

    asyncio.run(main())


async def ask_for_ever(ask: Any) -> None:
    while True:
        await ask(b"q")


def test_what_was_sent_is_answered_though_the_server_stops() -> None:
    """Every answer reaches its client before the server ends; what comes later is refused."""

    async def main() -> None:
        async with serving() as (server, ask, ask_usual):
            calls = [(ask, ask_usual)[number % 2](b"%d" % number) for number in range(200)]
            while not server.open_quick_calls:
                await asyncio.sleep(0)
            stopping = asyncio.create_task(server.stop(TIMEOUT_SECONDS))
            for call in calls:
                try:
                    assert (await call).split()[0] in (b"quick", b"usual")
                except grpc.aio.AioRpcError as exc:  # it came late, on a slow machine
                    assert exc.details() == "Server is shutting down"  # noqa: PT017
            assert await calls[0] == b"quick 0"
            with pytest.raises(grpc.aio.AioRpcError, match="UNAVAILABLE"):
                await ask_for_ever(ask)
            await stopping
            assert not server.open_quick_calls

    asyncio.run(main())


def socket_files() -> set[Path]:
    """The Unix sockets of this process that have a file."""
    names = (str(each.laddr) for each in psutil.Process().net_connections("unix"))
    return {Path(name) for name in names if name.startswith("/")}


def services(port: int) -> list[str]:
    """What a client learns by reflection."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        return list(ProtoReflectionDescriptorDatabase(channel).get_services())


@pytest.mark.parametrize("name", ["t", "t" * 100])
def test_without_abstract_sockets_reflection_has_a_file_until_the_server_stops(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS, whose temporary directory may have too long a path for a socket."""

    async def main(temporary: Path) -> None:
        before = socket_files()
        server = QuickServer([], abstract_sockets=False)
        Reflection(["test.Echo"], Access()).add_to(server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        assert "test.Echo" in await asyncio.to_thread(services, port)
        (socket,) = socket_files() - before
        assert socket.is_socket()
        assert socket.parent.parent == (temporary if name == "t" else Path("/tmp"))
        await server.stop(TIMEOUT_SECONDS)
        assert not socket.parent.exists()

    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        temporary = Path(short, name)
        temporary.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(temporary))
        asyncio.run(main(temporary))
