"""Programs on a pseudo-terminal of their own, as a person sees them."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

from tests.processes import finish, run_hotswap, start_with

_PIECE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+")
_UP, _ERASE = "\x1b[1A", "\x1b[2K"
_DEADLINE_SECONDS = 200


@dataclass(frozen=True, slots=True)
class Shown:
    """What a program wrote on its terminal."""

    code: int
    text: str

    @property
    def lines(self) -> list[str]:
        """The lines as they stay on the screen: without colours, and without what was replaced or taken away."""
        screen = [""]
        for piece in _PIECE.findall(self.text):
            if piece == "\n":
                screen.append("")
            elif piece == _UP:
                screen.pop()
            elif piece == _ERASE:
                screen[-1] = ""
            elif not piece.startswith(("\x1b", "\r")):
                screen[-1] += piece
        return screen[:-1] if screen[-1] == "" else screen


def on_a_terminal(command: Sequence[str], columns: int = 80) -> Shown:
    """Run `command` with standard output and error on a terminal of so many columns."""
    process, leader = _started(command, columns)
    chunks = []
    try:
        while chunk := _read(leader):
            chunks.append(chunk)
    finally:
        os.close(leader)
        code = process.wait(_DEADLINE_SECONDS)
    return Shown(code, b"".join(chunks).decode())


def until_shown(command: Sequence[str], words: str) -> tuple[float, str]:
    """How many seconds it takes until `command` has written these words, and all it wrote; then it is killed."""
    started = time.monotonic()
    process, leader = _started(command, columns=80)
    text = ""
    while words not in text and (chunk := _read(leader)):
        text += chunk.decode()
    seconds = time.monotonic() - started
    process.kill()
    process.wait(_DEADLINE_SECONDS)
    os.close(leader)
    return seconds, text


def _started(command: Sequence[str], columns: int) -> tuple[subprocess.Popen[bytes], int]:
    """Its process, and the end of its terminal that is read."""
    leader, follower = _terminal(columns)
    process = subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, env=_environment())
    os.close(follower)
    return process, leader


def hotswap_on_a_terminal(*arguments: str, columns: int = 80) -> Shown:
    """The same for ``hotswap …``, in a process that is forked as those of `tests.processes` are."""
    leader, follower = _terminal(columns)
    with Connection(follower) as end:
        process = start_with(_environment(), _run_on, end, arguments)
    chunks = []
    while chunk := _read(leader):
        chunks.append(chunk)
    os.close(leader)
    code = finish(process)
    assert code is not None
    return Shown(code, b"".join(chunks).decode())


def _run_on(terminal: Connection, arguments: Sequence[str]) -> None:
    for number in range(3):
        os.dup2(terminal.fileno(), number)
    run_hotswap(arguments)


def _terminal(columns: int) -> tuple[int, int]:
    """Both ends of a new one."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    return leader, follower


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    return {**kept, "TERM": "xterm"}


def _read(leader: int) -> bytes:
    try:
        return os.read(leader, 65536)
    except OSError:  # Linux says so when the last process has closed it
        return b""
