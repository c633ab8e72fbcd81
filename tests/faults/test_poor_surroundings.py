"""A server does not depend on what its surroundings grant beyond a processor, memory and its ports."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import grpc
import pytest
import requests
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from clients.grpc_client import GrpcClient
from serving.cli import EXIT_NOT_STARTED
from serving.rest.off_loop import MAX_INLINE_PARSE_BYTES
from tests.conformance.launch import serve
from tests.conftest import TinyModel
from tests.faults.bystander import ROW
from tests.faults.server_process import ServerProcess, server_process, server_program
from tests.processes import Piped, forked
from tests.waiting import until

NICE = (
    "/bin/sh",
    "-c",
    '[ "$(id -u)" != 0 ] || set -- setpriv --bounding-set=-sys_nice "$@"; exec nice -n 15 "$@"',
    "sh",
)
"""a low priority, and no right to a higher one"""
NO_FILES = ("/bin/sh", "-c", 'ulimit -f 0 && exec "$@"', "sh")
"""no file can be written anywhere: no temporary ones, no shared memory, no semaphores"""


def wait_answered_by(server: ServerProcess, version: int) -> None:
    """Ask until this version answers without being asked for."""
    with GrpcClient(f"127.0.0.1:{server.grpc_port}") as client:

        def available() -> bool:
            states = {each.version: (each.state.name, each.message) for each in client.status("tiny")}
            assert states.get(version, ("START", ""))[0] != "END", states
            requests.post(f"{server.url('tiny')}:predict", json=ROW, timeout=30)
            return states.get(version, ("", ""))[0] == "AVAILABLE"

        until(available)


@pytest.mark.parametrize(
    "wrapper",
    [
        pytest.param(NICE, marks=pytest.mark.soak, id="nice"),
        pytest.param(NO_FILES, marks=pytest.mark.soak, id="no files"),
        pytest.param((*NICE, *NO_FILES), id="both"),
    ],
)
def test_a_server_in_poor_surroundings_swaps_and_reads_huge_requests(
    wrapper: Sequence[str], tiny_model: TinyModel, tmp_path: Path
) -> None:
    """Of low priority already, or where no file can be written: the next version is loaded all the same."""
    base_path = tmp_path / "tiny"
    tiny_model(base_path, 1)
    flags = ["--model_name=tiny", f"--model_base_path={base_path}", "--max_num_load_retries=0"]
    with server_program(tmp_path, *flags, "--file_system_poll_wait_seconds=1", wrapper=wrapper) as server:
        for version in (2, 3):
            tiny_model(base_path, version)
            wait_answered_by(server, version)
        body = b'{"instances": [[0, 0, 0, 1]]' + b" " * MAX_INLINE_PARSE_BYTES + b"}"
        answer = requests.post(f"{server.url('tiny')}:predict", data=body, timeout=60)
        assert answer.json() == {"predictions": [[4.0, 13.0, 103.0]]}


def test_a_server_that_was_stopped_meanwhile_takes_sigterm(tiny_model: TinyModel, tmp_path: Path) -> None:
    """The signal may come to any of its threads when it goes on."""
    tiny_model(tmp_path / "tiny", 1)
    flags = ["--model_name=tiny", f"--model_base_path={tmp_path / 'tiny'}", "--ephemeral_ports", "--ports_file=-"]
    server = Piped(os.environ, serve, flags)
    try:
        assert server.stdout.readline()
        for number in (signal.SIGSTOP, signal.SIGTERM, signal.SIGCONT):
            server.send_signal(number)
        server.communicate()
        assert server.returncode == 0
    finally:
        server.kill()


def test_a_server_that_cannot_tell_its_ports_ends_and_says_why(tiny_model: TinyModel, tmp_path: Path) -> None:
    """One line and exit code 255, with nothing left beside the file."""
    (place := tmp_path / "place").mkdir()
    (target := place / "ports.json").mkdir()
    flags = [*serving_tiny(tiny_model, tmp_path), "--ephemeral_ports", f"--ports_file={target}"]
    ended = forked(os.environ, serve, flags)
    reason = f"INVALID_ARGUMENT: --ports_file={target} cannot be written (Is a directory)"
    assert (ended.returncode, ended.stdout) == (EXIT_NOT_STARTED, "")
    assert f"Failed to start server. Error: {reason}\n" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert list(place.iterdir()) == [target]


def services(server: ServerProcess) -> set[str]:
    """What a client learns by reflection."""
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        return set(ProtoReflectionDescriptorDatabase(channel).get_services())


def serving_tiny(tiny_model: TinyModel, root: Path) -> Sequence[str]:
    """The flags of a server of one version."""
    tiny_model(root / "tiny", 1)
    return ["--model_name=tiny", f"--model_base_path={root / 'tiny'}", "--max_num_load_retries=0"]


@pytest.mark.parametrize(
    ("directory", "wrapper"),
    [
        pytest.param("long", (), id="long"),
        pytest.param("/proc", (), marks=pytest.mark.soak, id="read-only"),
        pytest.param("", NO_FILES, marks=pytest.mark.soak, id="no files"),
    ],
)
def test_temporary_directory_is_of_no_consequence(
    directory: str, wrapper: Sequence[str], tiny_model: TinyModel, tmp_path: Path
) -> None:
    """Too long a path for a socket, or nothing can be written there: all of gRPC is served, reflection too."""
    pytest.importorskip("pygrpc_native")
    flags = serving_tiny(tiny_model, tmp_path)
    long = tmp_path / ("x" * 200)
    long.mkdir()
    environment = os.environ | {"TMPDIR": str(long) if directory == "long" else directory}
    with server_program(tmp_path, *flags, environment=environment, wrapper=wrapper) as server:
        wait_answered_by(server, 1)
        assert "tensorflow.serving.PredictionService" in services(server)
        assert not server.complaints()
        assert "gRPC" not in server.log.read_text()
    assert not list(long.iterdir())


def test_a_server_that_is_killed_leaves_nothing_in_the_temporary_directory(
    tiny_model: TinyModel, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Also where it has answered by reflection, whose requests go through a socket."""
    pytest.importorskip("pygrpc_native")
    temporary = tmp_path_factory.mktemp("t")  # short enough for the path of a socket
    environment = os.environ | {"TMPDIR": str(temporary)}
    with server_program(tmp_path, *serving_tiny(tiny_model, tmp_path), environment=environment) as server:
        assert "tensorflow.serving.PredictionService" in services(server)
    assert not list(temporary.iterdir())


UNUSABLE = {
    "missing library": ("raise ImportError('libssl.so.3')", "ImportError: libssl.so.3"),
    "wrong platform": ("raise RuntimeError('built for another processor')", "RuntimeError: built for another"),
    "other names": ("EVENT_CALL = 0", "AttributeError: 'QuickServer' object has no attribute '_front_args'"),
    "other start": ("EVENT_CALL = 0", "TypeError: start() needs a loop"),
}
IN_MAKE_TEST = ("missing library", "other start")
"""what comes at the import, and what comes at the start"""
STARTED_OTHERWISE = """
import socket

class Server:
    def __init__(self, options):
        self._front_args, self._options = {}, options

    def add_registered_method_handlers(self, *names): ...

    def add_insecure_port(self, address):
        self._front = socket.create_server(("127.0.0.1", int(address.rpartition(":")[2])))
        return self._front.getsockname()[1]

    async def start(self):
        raise TypeError("start() needs a loop")
"""


def import_from(directory: str) -> None:
    """Let this process find packages there first."""
    sys.path.insert(0, directory)


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=() if kind in IN_MAKE_TEST else pytest.mark.soak) for kind in UNUSABLE],
)
def test_grpcio_serves_where_pygrpc_native_does_not_start(kind: str, tiny_model: TinyModel, tmp_path: Path) -> None:
    """Whatever another release or platform makes of it: one line of log says so, and all of gRPC is served."""
    flags = serving_tiny(tiny_model, tmp_path)
    content, told = UNUSABLE[kind]
    package = tmp_path / "other" / "pygrpc_native"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(content)
    (package / "aio.py").write_text(
        STARTED_OTHERWISE if kind == "other start" else "class Server:\n    def __init__(self, options): ..."
    )
    with server_process(tmp_path, *flags, first=partial(import_from, str(package.parent))) as server:
        wait_answered_by(server, 1)
        assert "tensorflow.serving.PredictionService" in services(server)
        (line,) = [line for line in server.log.read_text().splitlines() if "pygrpc-native" in line]
        assert f"gRPC is served by grpcio, as pygrpc-native does not start: {told}" in line
        assert not server.complaints()
