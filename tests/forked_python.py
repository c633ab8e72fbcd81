"""
A Python that is there at once: a program for ``PROGRAM -m MODULE …``, where `sys.executable` would import everything.

It is a small process that passes signals on to the real one, and ends as that does. The real one is forked from one
that has imported everything, in a session of its own; it is killed, with all of its session, when the small one has
gone. What it starts by `sys.executable` is forked too. How a program starts, and what it imports when, is not seen.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import resource
import runpy
import selectors
import signal
import socket
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import dropwhile
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.processes import PYTHON, become, finish, start
from tests.shared_forks import forget_tracker
from tests.waiting import until

_PROGRAM = """#!{python} -IS
import os, signal, socket, sys
option, what = (*[each for each in sys.argv[1:] if each in ("-m", "-c") or each[:1] != "-"], "", "")[:2]
if option != "-m" and what != "{worker}" and not what.startswith("from multiprocessing.forkserver "):
    os.execv("{python}", ["{python}", *sys.argv[1:]])
descriptors = []
for each in os.listdir("/proc/self/fd"):
    try:
        if os.get_inheritable(int(each)):
            descriptors.append(int(each))
    except OSError:
        pass
connection = socket.socket(socket.AF_UNIX)
connection.connect("{address}")
variables = [name + b"=" + value for name, value in os.environb.items()]
numbers = " ".join(map(str, descriptors)).encode()
arguments = [os.fsencode(each) for each in sys.argv]
told = b"\\0".join([os.getcwdb(), numbers, str(len(arguments)).encode(), *arguments, *variables])
socket.send_fds(connection, [len(told).to_bytes(8, "big")], descriptors)
connection.sendall(told)
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, _: connection.send(bytes([number])))
for each in descriptors:
    os.close(each)
status = int.from_bytes(connection.recv(4) or b"\\1", "big", signed=True)
if status < 0:
    signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
os._exit(status)
"""
_WORKER = "import sys;exec(eval(sys.stdin.readline()))"
"""as which pytest-xdist starts a worker, whose `sys.executable` is a real one"""
_MANY = 200
"""descriptors, of one process"""


@contextmanager
def forked_python(directory: Path) -> Iterator[Path]:
    """The program, whose processes are forked during the block."""
    address, program = directory / "address", directory / "python"
    program.write_text(_PROGRAM.format(python=sys.executable, address=address, worker=_WORKER))
    program.chmod(0o755)
    program.with_name("hotswap").symlink_to(Path(sys.executable).with_name("hotswap"))
    process = start(_serve, address)
    try:
        until(address.exists)
        yield program
    finally:
        process.kill()
        finish(process)


@dataclass(frozen=True)
class _Given:
    """What a process begins with."""

    directory: str
    arguments: Sequence[str]
    """the first one is the program"""
    variables: dict[str, str]
    descriptors: dict[int, int]
    """by the number that each has to have"""

    @classmethod
    def receive(cls, connection: socket.socket) -> _Given:
        length, received, _, _ = socket.recv_fds(connection, 8, _MANY)
        with connection.makefile("rb") as told:
            words = told.read(int.from_bytes(length, "big")).split(b"\0")
        directory, numbers, count, *rest = map(os.fsdecode, words)
        variables = dict(each.split("=", 1) for each in rest[int(count) :])
        return cls(
            directory, rest[: int(count)], variables, dict(zip(map(int, numbers.split()), received, strict=True))
        )


@dataclass
class _Running:
    """A process that was forked."""

    connection: socket.socket
    pid: int

    def pass_on(self) -> bool:
        """Signals that have come; false if the program has gone, and the process with it."""
        try:
            numbers = self.connection.recv(16)
        except ConnectionError:
            numbers = b""
        for number in numbers or [signal.SIGKILL]:
            os.kill(self.pid, number)
        if not numbers:
            self.kill_session()
        return bool(numbers)

    def tell_end(self) -> None:
        """Let the program end as the process has."""
        _, status = os.waitpid(self.pid, 0)
        self.kill_session()
        with suppress(OSError):
            self.connection.send(os.waitstatus_to_exitcode(status).to_bytes(4, "big", signed=True))
        self.connection.close()

    def kill_session(self) -> None:
        """End what it has started, and has not given a session of its own."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


def _serve(address: Path) -> None:
    """Fork a process for each program that connects, until the process of the tests ends."""
    given = _Forks(address).serve()
    if given is not None:  # in a fork
        _run(given)


class _Forks:
    """The process that has imported everything, and those that were forked from it."""

    def __init__(self, address: Path) -> None:
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(address.with_suffix(".new")))
        self._listening.listen(20)
        address.with_suffix(".new").rename(address)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listening, selectors.EVENT_READ)

    def serve(self) -> _Given | None:
        """In each fork it returns what that begins with; in this process when the one of the tests has ended."""
        parent = multiprocessing.parent_process()
        assert parent is not None
        self._selector.register(parent.sentinel, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select():
                if key.fileobj == parent.sentinel:
                    return None
                if key.fileobj is self._listening:
                    if given := self._fork():
                        return given
                elif key.fileobj in self._selector.get_map():
                    self._attend(key.fileobj, key.data)

    def _attend(self, to: Any, running: _Running) -> None:
        """To a program that has said something or gone, or to a process that has ended."""
        if to is running.connection:
            if not running.pass_on():
                self._selector.unregister(to)
            return
        self._selector.unregister(to)
        os.close(to)
        with suppress(KeyError):
            self._selector.unregister(running.connection)
        running.tell_end()

    def _fork(self) -> _Given | None:
        connection, _ = self._listening.accept()
        try:
            given = _Given.receive(connection)
        except (ConnectionError, ValueError):  # whoever asked was killed meanwhile
            connection.close()
            return None
        pid = os.fork()
        if pid == 0:
            self._forget(connection)
            return given
        for each in given.descriptors.values():
            os.close(each)
        running = _Running(connection, pid)
        self._selector.register(os.pidfd_open(pid), selectors.EVENT_READ, running)
        self._selector.register(connection, selectors.EVENT_READ, running)
        return None

    def _forget(self, connection: socket.socket) -> None:
        """Close what the fork has no use for."""
        every = [key.fileobj for key in self._selector.get_map().values()]
        self._selector.close()
        for each in [connection, *every]:
            if isinstance(each, socket.socket):
                each.close()


def _run(given: _Given) -> None:
    """Be the process."""
    os.setsid()
    _place(given.descriptors)
    forget_tracker()
    os.chdir(given.directory)
    become(given.variables if _WORKER in given.arguments else {**given.variables, PYTHON: given.arguments[0]})
    sys.stdin, sys.stdout, sys.stderr = (
        os.fdopen(number, mode, closefd=False, buffering=1 if number == 2 or os.isatty(number) else -1)
        for number, mode in enumerate("rww")
    )
    _interpret(given.arguments[1:], given.variables.get("PYTHONPATH", ""))


def _place(descriptors: dict[int, int]) -> None:
    """Give each its number, and close all others."""
    free = max(*descriptors, *descriptors.values()) + 1
    for number, each in descriptors.items():
        os.dup2(each, free + number)
    for number in descriptors:
        os.dup2(free + number, number)
    os.closerange(max(descriptors) + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    for each in {*range(max(descriptors))} - descriptors.keys():
        os.closerange(each, each + 1)


def _interpret(arguments: Sequence[str], path: str) -> None:
    """Do what ``python`` does with these arguments."""
    option, what, *rest = dropwhile(lambda each: each not in ("-m", "-c"), arguments)
    sys.path[:0] = [str(Path.cwd()), *filter(None, path.split(os.pathsep))]
    sys.argv = [option, *rest]
    if option == "-c":
        # As `multiprocessing` starts its process to fork from, and pytest-xdist its workers.
        sys.modules["__main__"] = main = ModuleType("__main__")
        exec(what, vars(main))
    else:
        logging.root.handlers.clear()  # of what is imported, which keep `logging.basicConfig` from doing anything
        warnings.filterwarnings("ignore", ".* found in sys.modules", RuntimeWarning)
        runpy.run_module(what, run_name="__main__", alter_sys=True)
