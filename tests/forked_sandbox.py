"""
A sandbox that is there at once: for HOTSWAP_SANDBOX_SERVER, a program with the flags of ``tensorflow_model_server``.

The server is our own, and a process of its own, but forked from one that has imported everything, where
``python -m serving`` takes a second of processor time. Trainings of tests that are not about the sandbox may have it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path

from serving.cli import main
from tests.processes import finish, start
from tests.waiting import until

_PROGRAM = """#!{python} -IS
import socket, sys
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect("{address}")
    socket.send_fds(connection, ["\\0".join(sys.argv[1:]).encode()], [1, 2])
    connection.recv(1)
sys.exit(1)
"""


@contextmanager
def forked_sandboxes(directory: Path) -> Iterator[Path]:
    """The program, whose servers are forked during the block."""
    address, program = directory / "address", directory / "sandbox"
    program.write_text(_PROGRAM.format(python=sys.executable, address=address))
    program.chmod(0o755)
    process = start(_fork_servers, address)
    try:
        until(address.exists)
        yield program
    finally:
        process.kill()
        finish(process)


def _fork_servers(address: Path) -> None:
    """Fork a server for each program that connects, until the process of the tests ends."""
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
                os._exit(_serve(connection))
            connection.close()


def _serve(connection: socket.socket) -> int:
    flags, outputs, _, _ = socket.recv_fds(connection, 1 << 16, 2)
    for number, output in enumerate(outputs, 1):
        os.dup2(output, number)
    threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
    return main(flags.decode().split("\0"))


def _end_with(connection: socket.socket) -> None:
    """End this process when the program has been killed."""
    connection.recv(1)
    os._exit(0)
