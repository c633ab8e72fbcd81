"""Shows in the output of a notebook's cell what is being done: one line that is rewritten, as on a terminal."""

from __future__ import annotations

import logging
import sys
import time
from datetime import timedelta
from typing import Any

_SECONDS_BETWEEN = 0.2  # steps may come by the thousand, as epochs do


def in_notebook() -> bool:
    """Whether this process runs the cells of a notebook."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return getattr(shell, "kernel", None) is not None


class NotebookLine(logging.Handler):
    """Shows the newest record and the time so far in the output of the cell; warnings stay."""

    def __init__(self, first: str) -> None:
        super().__init__()
        self._started = time.monotonic()
        self._shown = 0.0
        self._handle = _display(_text(first), display_id=True)

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        if record.levelno >= logging.WARNING:
            _display(_text(f"{time.strftime('%H:%M:%S')} {record.getMessage()}"))
        elif record.levelno >= logging.INFO or now - self._shown >= _SECONDS_BETWEEN:
            self._shown = now
            so_far = timedelta(seconds=int(now - self._started))
            self._handle.update(_text(f"{record.getMessage()} {so_far}"), raw=True)

    def end(self) -> None:
        """Empty the line. Not named `close`, which Prefect calls on every handler when it sets up its own."""
        self._handle.update(_text(""), raw=True)


def _display(content: dict[str, str], **options: Any) -> Any:
    from IPython.display import display

    show: Any = display  # has no types
    return show(content, raw=True, **options)


def _text(line: str) -> dict[str, str]:
    return {"text/plain": line}
