"""
Programs that are there at once: files that can be run, each run of which is a fork that does a function.

The fork has the arguments and the three standard streams of the program, and ends when that is killed.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path

from tests.processes import finish, start
from tests.waiting import until

_PROGRAM = """#!{python} -IS
import socket, sys
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect("{address}")
    socket.send_fds(connection, ["\\0".join(sys.argv[1:]).encode()], [0, 1, 2])
    connection.recv(1)
sys.exit(1)
"""


@contextmanager
def forked_program(directory: Path, action: Callable[[list[str]], int]) -> Iterator[Path]:
    """The program in `directory`; what it does during the block is `action`, with its arguments, in a fork."""
    address, program = directory / "address", directory / "program"
    program.write_text(_PROGRAM.format(python=sys.executable, address=address))
    program.chmod(0o755)
    process = start(_fork, address, action)
    try:
        until(address.exists)
        yield program
    finally:
        process.kill()
        finish(process)


def _fork(address: Path, action: Callable[[list[str]], int]) -> None:
    """Fork for each program that connects, until the process of the tests ends."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how they ended
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(address.with_suffix(".new")))
        listening.listen()
        address.with_suffix(".new").rename(address)
        while parent.sentinel not in wait([listening, parent.sentinel]):
            connection, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                os._exit(_do(action, connection))
            connection.close()


def _do(action: Callable[[list[str]], int], connection: socket.socket) -> int:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    arguments, streams, _, _ = socket.recv_fds(connection, 1 << 16, 3)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
    return action(arguments.decode().split("\0"))


def _end_with(connection: socket.socket) -> None:
    """End this process when the program has been killed."""
    connection.recv(1)
    os._exit(0)
