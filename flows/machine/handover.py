"""
Hands a command over to a process of this machine that has everything imported already.

The two meet at a socket of the file system, which only its owner can use. What is handed over is all that a command
takes from the shell that starts it: its arguments, working directory, environment and the standard streams themselves;
so it does there what it would do here, and its output is its own. The answer is its exit code. A closed connection
means that the other side has gone.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

TAKEN = b"+"
REFUSED = b"-"
INTERRUPT = b"!"
_TAKEN_WITHIN_SECONDS = 20.0
_SIZE = struct.Struct("!I")
_STREAMS = 3
_BACKLOG = 100


class CommandGone(Exception):
    """The process that carried a command out has ended without an exit code."""


class Refused(Exception):
    """The other process cannot carry the command out; `str` is the reason."""


@dataclass(frozen=True, slots=True)
class Handover:
    """A command, and what it takes from whoever starts it."""

    arguments: list[str]
    directory: str
    environment: dict[str, str]
    module_path: list[str]
    """where Python looks for modules"""
    encodings: list[tuple[str, str]]
    """of standard input, output and error, each with what is done with characters that it does not have"""
    code: str
    """the `fingerprint` of hotswap's own code"""
    mask: int
    """of the permissions of new files"""

    @classmethod
    def of_this_process(cls, arguments: list[str], code: str) -> Handover:
        """As if the command were started here."""
        os.umask(mask := os.umask(0o077))
        streams = (sys.__stdin__, sys.__stdout__, sys.__stderr__)
        encodings = [(each.encoding, each.errors or "strict") if each else ("utf-8", "strict") for each in streams]
        return cls(arguments, str(Path.cwd()), dict(os.environ), list(sys.path), encodings, code, mask)


def listen(path: Path) -> socket.socket:
    """A socket at `path` that takes handovers, instead of one that another process has left there."""
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX)
    mask = os.umask(0o177)
    try:
        with _short(path) as name:
            listening.bind(name)
    finally:
        os.umask(mask)
    listening.listen(_BACKLOG)
    return listening


def connect(path: Path) -> socket.socket | None:
    """A connection to whoever takes handovers at `path`; None where nobody does."""
    asking = socket.socket(socket.AF_UNIX)
    try:
        with _short(path) as name:
            asking.connect(name)
    except OSError:
        asking.close()
        return None
    return asking


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name of `path` that is short enough for an address, which has room for 107 bytes; Linux has one."""
    if sys.platform != "linux":
        yield str(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def hand_over(asking: socket.socket, command: Handover, streams: tuple[int, ...] = (0, 1, 2)) -> None:
    """
    Let the other process begin with the command.

    Raises:
        Refused: It does not.
    """
    document = json.dumps(asdict(command)).encode()
    try:
        asking.settimeout(_TAKEN_WITHIN_SECONDS)
        socket.send_fds(asking, [_SIZE.pack(len(document))], streams)
        asking.sendall(document)
        answer = asking.recv(1)
        if answer != TAKEN:
            raise Refused(_rest(asking) or "it ended")
        asking.settimeout(None)
    except OSError as exc:
        raise Refused(f"it does not answer: {exc}") from exc


def exit_code(asking: socket.socket) -> int:
    """
    The exit code of the command that was handed over, once it has ended.

    Raises:
        CommandGone: Its process has ended without one.
    """
    try:
        return int(_rest(asking))
    except (OSError, ValueError) as exc:
        raise CommandGone from exc


@contextmanager
def interrupts_sent(asking: socket.socket) -> Iterator[None]:
    """During the block, Ctrl-C goes to the command that was handed over, and not to this process."""

    def send(_number: int, _frame: FrameType | None) -> None:
        with suppress(OSError):
            asking.send(INTERRUPT)

    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.SIG_IGN:
        yield
        return
    signal.signal(signal.SIGINT, send)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def receive(connection: socket.socket) -> tuple[Handover, list[int]] | None:
    """A command and its standard streams; None if the other side has gone."""
    try:
        first, streams, _, _ = socket.recv_fds(connection, _SIZE.size, _STREAMS)
        if len(first) < _SIZE.size or len(streams) < _STREAMS:
            return None
        size: int = _SIZE.unpack(first)[0]
        document = json.loads(_exactly(connection, size))
    except (OSError, ValueError):
        return None
    return Handover(**document), streams


def fingerprint(*directories: Path) -> str:
    """What changes when a Python file below `directories` does."""
    files = [entry for directory in directories for entry in sorted(directory.rglob("*.py"))]
    newest = max((each.stat().st_mtime_ns for each in files), default=0)
    return f"{sys.prefix} {directories} {len(files)} {newest}"


def _exactly(connection: socket.socket, size: int) -> bytes:
    parts = []
    while size and (part := connection.recv(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _rest(connection: socket.socket) -> str:
    parts = []
    while part := connection.recv(1 << 16):
        parts.append(part)
    return b"".join(parts).decode()
