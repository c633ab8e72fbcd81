"""How is a server started the way a recorded case asks for?"""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

import grpc
import orjson
from tensorflow_serving.apis import get_model_status_pb2

from serving.cli import main
from serving.flags import parse_flags, settings_of
from serving.server import Server
from tests.conformance.cases import MODELS
from tests.conformance.client import GrpcAnswer, RestAnswer, ask_grpc, ask_rest, open_channel
from tests.processes import finish, start_with

ENVIRONMENT = dict(os.environ)
"""For processes that a thread starts: pytest changes the environment meanwhile, and the kernel would read that."""
START_SECONDS = 120.0
_POLL_SECONDS = 0.02
_STATUS_METHOD = "tensorflow.serving.ModelService/GetModelStatus"


def wait_until(holds: Callable[[], bool], seconds: float) -> bool:
    """Look again and again until it holds; False if it does not in time."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(_POLL_SECONDS)
    return True


@contextmanager
def reserved_ports(count: int) -> Iterator[list[int]]:
    """Free ports that the kernel gives to nobody else during the block; a server can listen on them all the same."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            each.bind(("127.0.0.1", 0))
        yield [each.getsockname()[1] for each in sockets]


def listens(port: int) -> bool:
    """Does anybody accept connections on this port?"""
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


class Scratch:
    """The directory that ``{root}`` stands for in requests and answers; ``{models}`` stands for the SavedModels."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._staged = itertools.count()

    def fill(self, text: str) -> str:
        """The text with real paths."""
        return text.replace("{root}", str(self.root)).replace("{models}", str(MODELS))

    def mask(self, text: str) -> str:
        """The text without real paths."""
        return text.replace(str(self.root), "{root}").replace(str(MODELS), "{models}")

    def path(self, text: str) -> Path:
        """A path under the directory, unless it is a full one."""
        return self.root / self.fill(text)

    def copy(self, source: str, target: str) -> None:
        """Let a copy of a directory appear at once."""
        staged = self._next_to_root()
        shutil.copytree(self.path(source), staged)
        self.path(target).parent.mkdir(parents=True, exist_ok=True)
        staged.rename(self.path(target))

    def copy_file(self, source: str, target: str) -> None:
        """Let a copy of a file appear at once."""
        self._put(self.path(target), self.path(source).read_bytes())

    def write(self, target: str, text: str) -> None:
        """Let a file with this text appear at once."""
        self._put(self.path(target), self.fill(text).encode())

    def remove(self, target: str) -> None:
        """Let a file or directory vanish at once."""
        removed = self._next_to_root()
        self.path(target).rename(removed)
        if removed.is_dir():
            shutil.rmtree(removed)

    def _put(self, target: Path, content: bytes) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        staged = self._next_to_root()
        staged.write_bytes(content)
        staged.rename(target)

    def _next_to_root(self) -> Path:
        """A path on the same file system that no server looks at."""
        return self.root.with_name(f"{self.root.name}.{next(self._staged)}")


class Launched(Protocol):
    """A server that is running or about to."""

    def wait_ready(self) -> None:
        """Return when both ports are open; raises where that cannot be."""

    def close(self) -> None:
        """Stop it."""


class InThisProcess:
    """A server in a thread."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._server = Server(settings_of(parse_flags(arguments)))
        self._pool = ThreadPoolExecutor(1)
        self._start = self._pool.submit(self._server.start)

    def wait_ready(self) -> None:
        self._start.result(START_SECONDS)

    def close(self) -> None:
        self._server.request_stop()
        if self._start.exception() is None:
            self._server.wait()
        self._pool.shutdown()


class InItsOwnProcess:
    """What ``python -m serving`` does."""

    def __init__(self, arguments: Sequence[str], log: Path) -> None:
        self._log = log
        log.touch()
        self._process = start_with(ENVIRONMENT, _serve, arguments, log)

    def wait_ready(self) -> None:
        wait_until(lambda: self._serves() or self._process.exitcode is not None, START_SECONDS)
        assert self._serves(), self.output()

    def wait_exit(self) -> int | None:
        """The exit code."""
        return finish(self._process)

    def output(self) -> str:
        """All that it has printed and logged."""
        return self._log.read_text("utf-8", "replace")

    def close(self) -> None:
        self._process.kill()
        self._process.join()

    def _serves(self) -> bool:
        return "serving grpc_port" in self.output()


def serve(arguments: Sequence[str]) -> None:
    """``python -m serving`` in this process."""
    sys.exit(main(arguments))


def _serve(arguments: Sequence[str], log: Path) -> None:
    with log.open("wb") as output:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(output.fileno(), stream.fileno())
    serve(arguments)


class Client:
    """Asks one server; its answers do not show where its files are."""

    def __init__(self, scratch: Scratch, grpc_port: int, rest_port: int) -> None:
        self._scratch = scratch
        self._channel: grpc.Channel = open_channel(grpc_port)
        self._rest_port = rest_port

    def rest(self, request: Mapping[str, Any], timeout_seconds: float) -> RestAnswer:
        """Ask over REST."""
        answer = ask_rest(self._rest_port, request, timeout_seconds)
        body = self._scratch.mask(answer.body.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
        return RestAnswer(answer.status, answer.headers, body)

    def grpc(self, method: str, message: bytes, timeout_seconds: float) -> GrpcAnswer:
        """Ask over gRPC."""
        answer = ask_grpc(self._channel, method, message, timeout_seconds)
        response = self._masked_status(answer.response) if method == _STATUS_METHOD else answer.response
        return GrpcAnswer(answer.code, self._scratch.mask(answer.message), response)

    def close(self) -> None:
        """Close the connections."""
        self._channel.close()

    def _masked_status(self, content: bytes) -> bytes:
        response = get_model_status_pb2.GetModelStatusResponse.FromString(content)
        for version in response.model_version_status:
            version.status.error_message = self._scratch.mask(version.status.error_message)
        serialized: bytes = response.SerializeToString()
        return serialized


def arguments_for(scratch: Scratch, config: str | None, flags: Sequence[str], ports: Sequence[int]) -> list[str]:
    """The command line of a server on these two ports, gRPC first; its config file is written where there is one."""
    arguments = [f"--port={ports[0]}", f"--rest_api_port={ports[1]}"]
    if config is not None:
        scratch.write("models.config", config)
        arguments.append(f"--model_config_file={scratch.root / 'models.config'}")
    return [*arguments, *map(scratch.fill, flags)]


@contextmanager
def running(setup: Mapping[str, Any], root: Path, native_grpc: bool) -> Iterator[Client]:
    """A server started as a setup says, with every version loaded or given up."""
    scratch = Scratch(root)
    for source, target in setup.get("tree", []):
        scratch.copy(f"{{models}}/{source}", target)
    for name, text in setup.get("files", {}).items():
        scratch.write(name, text)
    with reserved_ports(2) as ports, ExitStack() as stack:
        flags = [*setup["flags"], f"--native_grpc={native_grpc}"]
        launched = _launched(scratch, arguments_for(scratch, setup["config"], flags, ports))
        stack.callback(launched.close)
        launched.wait_ready()
        late = setup.get("tree_late", [])
        for source, target in late:
            scratch.copy(f"{{models}}/{source}", target)
        client = Client(scratch, *ports)
        stack.callback(client.close)
        assert wait_until(lambda: _settled(client, {target for _, target in late}), START_SECONDS)
        yield client


def _launched(scratch: Scratch, arguments: Sequence[str]) -> Launched:
    """A graph that runs for minutes ends only with its process; requests that time out leave such ones behind."""
    if any(argument.startswith("--rest_api_timeout_in_ms") for argument in arguments):
        return InItsOwnProcess(arguments, scratch.root / "log")
    return InThisProcess(arguments)


def _settled(client: Client, versions: set[str]) -> bool:
    """Are these versions, and all others, loaded or given up?"""
    page = client.rest({"method": "GET", "path": "/hotswap/models"}, START_SECONDS)
    states = {f"{row['model']}/{row['version']}": row["state"] for row in orjson.loads(page.body)["models"]}
    return states.keys() >= versions and set(states.values()) <= {"AVAILABLE", "END"}
