"""Keeps a log in a file that stays small; a full disk does not disturb whoever logs."""

from __future__ import annotations

import logging
from logging.handlers import RotatingFileHandler
from pathlib import Path

MAX_BYTES = 1 << 20


class LogFile(RotatingFileHandler):
    """Drops what cannot be written."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (the name in logging)
        """The same lines are on the terminal."""


def keep_log(room: str, path: Path) -> None:
    """Also write the logger `room`, from INFO up, to a file; the first line creates it."""
    handler = LogFile(path, maxBytes=MAX_BYTES, backupCount=1, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger(room)
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
