"""A process of the worker: it waits for one command or run, does it as a process of its own would, and ends."""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait

from flows import cli
from flows.cli import EXIT_INTERRUPTED
from flows.console import progress
from flows.local.delegation import code
from flows.local.interrupts import defer_sigint
from flows.machine import handover
from flows.machine.generated_code import remove_generated_code
from flows.machine.handover import Handover
from flows.orchestration import deployments, prefect_access
from flows.orchestration.prefect_access import PrefectUnavailable
from flows.settings import apply_environment, load_settings

log = logging.getLogger(__name__)

SCHEDULED = "scheduled"
"""the first argument of a run that Prefect has scheduled; its id is the second"""
_READ_AT_IMPORT = ("CUDA_", "KERAS_", "OMP_", "TF_", "XLA_")
_SET_BY_OURSELVES = ("TF_CPP_MIN_LOG_LEVEL", "TF_ENABLE_ONEDNN_OPTS", "TF_ONEDNN_USE_SYSTEM_ALLOCATOR")


def run(listening: socket.socket, worker: Connection, api_url: str) -> None:
    """
    Take the next command that comes to `listening`, and carry it out.

    Args:
        listening: The socket of the worker.
        worker: Gets an empty text when it has begun, and the id of its flow run; whatever comes from there before means
            that there is time for a rehearsal.
        api_url: Of the Prefect server that the worker's deployments are known to.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ["PREFECT_API_URL"] = api_url
    while True:
        if listening not in wait([listening, worker]):
            worker.recv()
            from flows.worker.rehearsal import rehearse  # the process of the worker imports this module too

            rehearse(load_settings())
            continue
        connection, _ = listening.accept()
        with connection:
            received = handover.receive(connection)
            if received is None:
                continue
            worker.send("")
            listening.close()
            reason = _refusal(received[0], api_url)
            if reason:
                connection.sendall(handover.REFUSED + reason.encode())
            else:
                connection.sendall(handover.TAKEN)
                _carry_out(connection, *received, api_url, worker.send)
        return


def _refusal(command: Handover, api_url: str) -> str:
    """Why this process cannot carry the command out as one of its own would; empty where it can."""
    theirs, ours = (_read_at_import(each) for each in (command.environment, os.environ))
    if command.code != code():
        return "hotswap has changed since it was started; start `hotswap up` again"
    if theirs != ours:
        different = sorted(name for name in theirs.keys() | ours.keys() if theirs.get(name) != ours.get(name))
        return f"{', '.join(different)} was another when it was started"
    if command.environment.get("PREFECT_API_URL", api_url) != api_url:
        return "PREFECT_API_URL names another Prefect server"
    return ""


def _read_at_import(environment: os._Environ[str] | dict[str, str]) -> dict[str, str]:
    """The variables that count when a module is imported, and not later."""
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(_READ_AT_IMPORT) and name not in _SET_BY_OURSELVES
    }


@dataclass
class _Course:
    """How far the command has come."""

    tell: Callable[[str], None]
    """gets the id of its flow run"""
    flow_run: str = ""
    is_over: bool = False

    def begin(self, flow_run: str) -> None:
        self.flow_run = flow_run
        self.tell(flow_run)


def _carry_out(
    connection: socket.socket, command: Handover, streams: list[int], api_url: str, tell: Callable[[str], None]
) -> None:
    gc.freeze()  # what is there now stays, and no collection has to look at it
    gc.enable()
    _become(command, streams)
    os.environ["PREFECT_API_URL"] = api_url
    course = _Course(tell)
    threading.Thread(target=_pass_interrupts, args=(connection, course), daemon=True).start()
    with defer_sigint(), deployments.serving(course.begin):
        exit_code = _exit_code(command.arguments, course)
    prefect_access.flush()
    if exit_code == EXIT_INTERRUPTED and course.flow_run:
        with suppress(PrefectUnavailable):
            prefect_access.cancel_run(course.flow_run)
    remove_generated_code()
    sys.stdout.flush()
    sys.stderr.flush()
    course.is_over = True
    connection.sendall(str(exit_code).encode())
    connection.shutdown(socket.SHUT_RDWR)


def _exit_code(arguments: list[str], course: _Course) -> int:
    if arguments[0] != SCHEDULED:
        return cli.run(arguments)
    course.begin(arguments[1])
    try:
        apply_environment(load_settings())
        prefect_access.read_settings()
        with progress.shown("a scheduled run", logging.INFO):
            deployments.run_scheduled(arguments[1])
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return 0


def _become(command: Handover, streams: list[int]) -> None:
    """Take on what the command would have as a process of its own."""
    os.environ.clear()
    os.environ.update(command.environment)
    os.chdir(command.directory)
    os.umask(command.mask)
    tempfile.tempdir = None  # it is read from the environment once
    sys.path[:] = command.module_path
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    opened = [
        os.fdopen(number, mode, encoding=encoding, errors=errors, closefd=False, buffering=_buffering(number))
        for number, (mode, (encoding, errors)) in enumerate(zip("rww", command.encodings, strict=True))
    ]
    sys.stdin, sys.stdout, sys.stderr = opened


def _buffering(stream: int) -> int:
    """By lines, as Python itself has it, for standard error and for terminals."""
    return 1 if stream == 2 or os.isatty(stream) else -1


def _pass_interrupts(connection: socket.socket, course: _Course) -> None:
    """Interrupt the command when whoever waits for it is interrupted, or has gone."""
    with suppress(OSError):
        while connection.recv(1) == handover.INTERRUPT:
            os.kill(os.getpid(), signal.SIGINT)
    if not course.is_over:
        os.kill(os.getpid(), signal.SIGINT)
