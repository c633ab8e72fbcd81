"""
The server that candidates are tried on: our own, or the `tensorflow_model_server` of the settings.

It is a separate process, which starts early, so that it is ready when the candidate is, and is killed at the end: it
has nothing to lose. One that takes too much memory is killed at once.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import TracebackType
from typing import Self

import psutil

from flows.machine.processes import Process
from flows.machine.workspaces import temporary_directory
from flows.settings import Endpoint, Settings
from serving.protocol.errors import DeadlineExceeded, HotswapError, ServerUnavailable

POLL_SECONDS = 0.02
_STARTS = 3
_START_SECONDS = 60.0
_MEGABYTE = 2**20


class SandboxUnavailable(HotswapError):
    """The sandbox's server cannot be started, which is not the candidate's fault."""


class SandboxServer:
    """
    A model server that starts with the block and is killed with it.

    It serves nothing until it is given a configuration.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.peak_mb = 0.0
        """the most memory that it took while it was `measured`"""
        self._exceeded = False
        self._stopped = False
        self._given: Endpoint | None = None

    def __enter__(self) -> Self:
        binary = self.settings.sandbox_server
        if binary is not None and not (binary.is_file() and os.access(binary, os.X_OK)):
            raise SandboxUnavailable(f"HOTSWAP_SANDBOX_SERVER={binary} is not a program that can be run")
        self._workspace = ExitStack()
        self.directory = self._workspace.enter_context(temporary_directory())
        self._process = self._start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Kill it; there are no requests but ours."""
        if not self._stopped:
            self._stopped = True
            self._process.end(time.monotonic())
            self._workspace.close()

    def ready(self) -> Endpoint:
        """
        Where it answers; a start that failed, for instance on a port that was taken meanwhile, is repeated.

        Raises:
            SandboxUnavailable: It did not start.
        """
        deadline = time.monotonic() + _START_SECONDS
        for start in range(_STARTS):
            if start:
                self._process.end(time.monotonic())
                self._process = self._start()
            while not self._process.ended:
                if (endpoint := self._endpoint()) is not None:
                    return endpoint
                if time.monotonic() > deadline:
                    break
                time.sleep(POLL_SECONDS)
        raise SandboxUnavailable(f"The sandbox's server did not start; its last lines:\n{self._process.last_lines}")

    @property
    def last_lines(self) -> str:
        return self._process.last_lines

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Measure the server's memory during the block, and kill it when it takes more than it may."""
        with _MemoryWatch(self._process.pid, self._note_memory):
            yield

    def failure_reason(self, exc: HotswapError) -> str:
        """What became of the server, where that is why it did not answer; else empty."""
        deadline = time.monotonic() + 1.0
        while isinstance(exc, ServerUnavailable) and not self._process.ended and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        if self._exceeded:
            limit = self.settings.sandbox_memory_mb
            return f"the server took {self.peak_mb:.0f} MB with it, more than {limit} MB (HOTSWAP_SANDBOX_MEMORY_MB)"
        if self._process.ended:
            return "the server crashed with it"
        return "it did not answer in time" if isinstance(exc, DeadlineExceeded) else ""

    def _note_memory(self, megabytes: float) -> None:
        self.peak_mb = max(self.peak_mb, megabytes)
        if megabytes > self.settings.sandbox_memory_mb and not self._exceeded:
            self._exceeded = True
            self._process.kill()

    def _start(self) -> Process:
        config = self.directory / "models.config"
        config.write_text("model_config_list {}\n")
        (self.directory / "ports.json").unlink(missing_ok=True)
        flags = [f"--model_config_file={config}", "--max_num_load_retries=0"]
        binary = self.settings.sandbox_server
        if binary is None:
            ports = ["--ephemeral_ports", f"--ports_file={self.directory / 'ports.json'}"]
            return self._run(sys.executable, "-m", "serving", *ports, *flags)
        rest_port, grpc_port = _free_ports()
        self._given = Endpoint(f"http://127.0.0.1:{rest_port}", f"127.0.0.1:{grpc_port}")
        ports = [f"--port={grpc_port}", f"--rest_api_port={rest_port}"]
        return self._run(str(binary.absolute()), *ports, *flags)

    def _run(self, *command: str) -> Process:
        """It is killed, and cannot remove what it makes for itself, so it makes that where everything is removed."""
        return Process("sandbox", command, self.directory, {"TMPDIR": str(self.directory)})

    def _endpoint(self) -> Endpoint | None:
        """Where the process listens; None while it does not."""
        if self._given is not None:
            addresses = (self._given.rest_url.removeprefix("http://"), self._given.grpc_target)
            return self._given if all(map(_listens, addresses)) else None
        try:
            ports = json.loads((self.directory / "ports.json").read_text())
        except FileNotFoundError:
            return None
        return Endpoint(ports["rest"], ports["grpc"])


class _MemoryWatch:
    """
    Reports how many megabytes are resident in a process and those it has started, many times a second.

    A limit on address space or data would count what TensorFlow reserves and never touches.
    """

    def __init__(self, pid: int, report: Callable[[float], None]) -> None:
        self._pid = pid
        self._report = report
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sandbox-memory", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        with suppress(psutil.NoSuchProcess):
            leader = psutil.Process(self._pid)
            processes = [leader, *leader.children(recursive=True)]
            while not self._ended.wait(POLL_SECONDS):
                self._report(sum(each.memory_info().rss for each in processes) / _MEGABYTE)


def _free_ports() -> tuple[int, int]:
    """Two ports that nobody has just now."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return one.getsockname()[1], other.getsockname()[1]


def _listens(address: str) -> bool:
    host, port = address.split(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True
