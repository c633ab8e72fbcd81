"""
Shows what a command is doing.

On a terminal and in a notebook one live line has the newest step and the time so far, and is gone before the result is
printed; elsewhere each step is a short line of log, on standard error. A terminal has its line there too, also while
standard error is held back, as it is when TensorFlow starts.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from flows.console.notebook import NotebookLine, in_notebook
from flows.console.terminal import COLUMNS, elided, width

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger(__name__)

ROOMS = ("flows", "serving", "clients")
_TIME = "%H:%M:%S"
_RUN_ID = re.compile(r"\b([0-9a-f]{8})[0-9a-f]{24}\b")
_REPORT = logging.INFO + 5
_BESIDE_THE_STEP = 14
_REFRESHES_PER_SECOND = 5


def note(what: str) -> None:
    """Show the step that begins now, on a terminal and elsewhere."""
    log.info(what)


def report(what: str) -> None:
    """Show lines that stay: above the live line on a terminal, and whole elsewhere."""
    log.log(_REPORT, what)


def step(what: str) -> None:
    """Show the step that begins now, on a terminal only: elsewhere a line of log follows when it is done."""
    log.debug(what)


def show_logs(level: int) -> None:
    """Show what our modules log from `level` on, one line each on standard error; of servers only warnings."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(level)
    handler.setFormatter(_Short("%(asctime)s %(message)s", _TIME))
    _set_handler(handler, level)
    log.propagate, log.handlers = True, []
    log.setLevel(logging.NOTSET)


@contextmanager
def kept_logs() -> Iterator[None]:
    """What the block does to the logs of our modules is undone at its end."""
    loggers = [logging.getLogger(room) for room in ROOMS]
    before = [(logger.level, logger.handlers) for logger in loggers]
    try:
        yield
    finally:
        for logger, (level, handlers) in zip(loggers, before, strict=True):
            logger.setLevel(level)
            logger.handlers = handlers


@contextmanager
def shown(first: str, level: int = logging.INFO, quiet: bool = False) -> Iterator[Callable[[], None]]:
    """
    Show what is being done during the block.

    Args:
        first: What a terminal shows at once; elsewhere standard error stays empty, for an error that is found at once.
        level: The lowest level of our modules' logs that is shown where there is no terminal.
        quiet: Whether steps are shown on a terminal only.

    Yields:
        A function that ends the display before the block does.
    """
    show_logs(level)
    handler: _LiveLine | NotebookLine | logging.Handler
    if in_notebook():
        handler = NotebookLine(first)
        _set_handler(handler, logging.INFO)
    elif _is_live(sys.stderr):
        handler = _LiveLine(first)
        _set_handler(handler, logging.INFO)
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_Short("%(asctime)s %(message)s", _TIME))
        handler.setLevel(logging.WARNING if quiet else logging.INFO)
    log.propagate, log.handlers = False, [handler]
    is_live = isinstance(handler, (_LiveLine, NotebookLine))
    log.setLevel(logging.DEBUG if is_live else logging.INFO)

    def close() -> None:
        if handler in log.handlers:
            if isinstance(handler, (_LiveLine, NotebookLine)):
                handler.end()
            show_logs(max(level, logging.WARNING))

    try:
        yield close
    finally:
        close()


def _set_handler(handler: logging.Handler, level: int) -> None:
    for room in ROOMS:
        logger = logging.getLogger(room)
        logger.setLevel(level if room == "flows" else max(level, logging.WARNING))
        # Prefect's own, which it adds when it is imported, records the lines of a run.
        prefects = [each for each in logger.handlers if type(each).__module__.startswith("prefect.")]
        logger.handlers = [handler, *prefects]


def _is_live(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")


class _Short(logging.Formatter):
    """Formats a line that fits the terminal, with short run ids; reports and warnings stay whole."""

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        if record.levelno > logging.INFO:
            return line
        line = _RUN_ID.sub(r"\1", line)
        return line if len(line) <= COLUMNS else f"{line[: COLUMNS - 1]}…"


class _LiveLine(logging.Handler):
    """Shows the newest record beside a spinner and the time so far; reports and warnings stay above it."""

    def __init__(self, first: str) -> None:
        super().__init__()
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._stream = os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding=sys.stderr.encoding, errors="replace")
        self._console: Console = Console(file=self._stream, highlight=False, width=width())
        self._progress = Progress(
            SpinnerColumn("line"),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            refresh_per_second=_REFRESHES_PER_SECOND,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._progress.add_task(first, total=None)
        self._progress.start()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.levelno > logging.INFO:
            self._console.print(f"{time.strftime(_TIME)} {text}", markup=False)
        else:
            short = elided(_RUN_ID.sub(r"\1", text), width() - _BESIDE_THE_STEP)
            # Steps may come by the thousand, as epochs do; what is worth a line elsewhere is always shown.
            self._progress.update(self._task, description=short, refresh=record.levelno >= logging.INFO)

    def end(self) -> None:
        """Remove the line. Not named `close`, which Prefect calls on every handler when it sets up its own."""
        self._progress.stop()
        self._stream.close()
