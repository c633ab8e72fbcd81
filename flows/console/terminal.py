"""
Fits text to the terminal.

Tables fit its width, or 80 columns where there is no terminal; sentences are wrapped on a terminal only, so that a pipe
gets each in one line. Text from others, such as a reason, can neither mark up nor control the terminal.
"""

from __future__ import annotations

import shutil
import sys
import textwrap
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console

COLUMNS = 80
_MIN_COLUMNS = 40
_UNLIMITED = 100_000


def width() -> int:
    """The columns of the terminal, or what ``COLUMNS`` says; 80 where there is none."""
    return max(_MIN_COLUMNS, shutil.get_terminal_size((COLUMNS, 24)).columns)


def console(wide: bool = False) -> Console:
    """A console on standard output; with `wide` for lines of any length."""
    from rich.console import Console

    return Console(width=_UNLIMITED if wide else width(), highlight=False, soft_wrap=wide)


def wrapped(text: str, stream: TextIO | None = None, hanging: int = 0) -> str:
    """`text` wrapped between words where `stream`, else standard output, is a terminal; its line breaks are kept."""
    if not (stream or sys.stdout).isatty():
        return text
    return "\n".join(filled(line, hanging) for line in text.split("\n"))


def filled(line: str, hanging: int = 0) -> str:
    """`line` wrapped between words where it does not fit the terminal; `hanging` indents the lines after the first."""
    if len(line) <= width():
        return line
    indent = " " * (len(line) - len(line.lstrip()))
    return textwrap.fill(
        line.strip(),
        width(),
        initial_indent=indent,
        subsequent_indent=" " * hanging,
        break_long_words=False,
        break_on_hyphens=False,
    )


def one_line(text: str) -> str:
    """`text` without characters that break a line or control a terminal."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def elided(text: str, columns: int) -> str:
    """`text` in at most so many columns: where it is longer its middle is left out."""
    from rich.cells import cell_len, set_cell_size

    if cell_len(text) <= columns:
        return text
    head = columns // 2
    tail = ""
    for char in reversed(text):
        if cell_len(char + tail) > columns - head - 1:
            break
        tail = char + tail
    return f"{set_cell_size(text, head).rstrip()}…{tail}"
