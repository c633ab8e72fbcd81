"""
Reports why a command failed: one sentence with the next step, on standard error.

Most errors are translated where they arise. What still arrives here as an exception of another library (the system,
Prefect, MLflow) gets its sentence here; only what is left after that is a bug of ours, reported as an internal error.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import sys
import traceback
from collections.abc import Iterator
from typing import Any

from flows.console.terminal import wrapped
from flows.machine.workspaces import still_there
from flows.user_code import RecipeFailed, described
from serving.protocol.errors import HotswapError
from serving.protocol.redaction import redacted

EXIT_ERROR = 1

_STORAGE = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some space there, or ask for a larger quota",
    errno.EROFS: "name a place that can be written in HOTSWAP_HOME and HOTSWAP_MODELS_REPO",
    errno.EACCES: "let this user read and write it, or name another place in HOTSWAP_HOME and HOTSWAP_MODELS_REPO",
    errno.EPERM: "let this user read and write it, or name another place in HOTSWAP_HOME and HOTSWAP_MODELS_REPO",
    errno.EIO: "see what the system's log says of the disk",
    errno.EISDIR: "a file belongs there: move the directory away",
    errno.ENOTDIR: "a directory belongs there: move the file away",
    errno.ENAMETOOLONG: "name a shorter path in HOTSWAP_HOME and HOTSWAP_MODELS_REPO",
    errno.EMFILE: "allow more open files: `ulimit -n`",
}


def report(exc: Exception) -> int:
    """Print on standard error what went wrong; the exit code."""
    if isinstance(exc, HotswapError):
        details = f"; {_keep_traceback(exc)}" if isinstance(exc, RecipeFailed) else ""
        complain(f"{exc}{details}")
        return getattr(exc, "exit_code", EXIT_ERROR)
    sentence = _sentence(exc) or f"internal error, {described(exc)}"
    complain(f"{sentence}; {_keep_traceback(exc)}")
    return EXIT_ERROR


def complain(sentence: str) -> None:
    """Print one sentence on standard error."""
    # Redacted before it is wrapped: a secret may end on the next line.
    print(wrapped(f"hotswap: {redacted(sentence)}", sys.stderr), file=sys.stderr)


def complain_of_usage(message: str, command: str) -> None:
    """Print what is wrong with the arguments of a command, and where its help is."""
    see = f"see `{command} --help`"
    complain(f"{message} S{see[1:]}" if message.endswith("?") else f"{message.rstrip('.')}; {see}")


def _keep_traceback(exc: Exception) -> str:
    from flows.settings import load_settings, prepare_home

    try:
        path = prepare_home(load_settings()) / "logs" / "error.log"
        path.write_text(redacted("".join(traceback.format_exception(exc))), "utf-8")
    except (HotswapError, OSError) as why:
        return f"the traceback is lost: {why}"
    return f"the traceback is in {path}"


def _sentence(exc: BaseException) -> str | None:
    """What happened and what to do; None for a bug of ours."""
    for each in _chain(exc):
        for known in (_memory, _temporary_directory, _storage, _setting, _prefect, _mlflow, _database):
            if (sentence := known(each)) is not None:
                return sentence
    return None


def _memory(exc: BaseException) -> str | None:
    if isinstance(exc, MemoryError) or type(exc).__name__ == "ResourceExhaustedError":
        return "Memory ran out: do less at a time, or do it where more is free"
    return None


def _temporary_directory(exc: BaseException) -> str | None:
    if isinstance(exc, FileNotFoundError) and "No usable temporary directory" in str(exc):
        return "There is no directory for temporary files that can be written: set TMPDIR to one"
    return None


def _storage(exc: BaseException) -> str | None:
    if not isinstance(exc, OSError) or exc.errno not in _STORAGE:
        return None
    where = still_there(exc.filename) if isinstance(exc.filename, str) else "A file"
    return f"{where} cannot be used ({os.strerror(exc.errno)}): {_STORAGE[exc.errno]}"


def _setting(exc: BaseException) -> str | None:
    """A value of a ``PREFECT_`` variable that Prefect cannot use."""
    if type(exc).__name__ != "ValidationError" or not hasattr(exc, "errors"):
        return None
    first: dict[str, Any] = exc.errors()[0]
    given = str(first["input"])
    named = [name for name, value in os.environ.items() if name.startswith("PREFECT_") and value == given]
    if not named:
        return None
    return f"{named[0]}={given!r} cannot be used: {first['msg']}"


def _prefect(exc: BaseException) -> str | None:
    from flows.orchestration.prefect_access import explain

    return explain(exc) if _room(exc) in ("prefect", "httpx", "httpcore") else None


def _mlflow(exc: BaseException) -> str | None:
    if _room(exc) != "mlflow" and "mlflow" not in _rooms_below_ours(exc):
        return None
    return f"MLflow cannot be used ({described(exc)}): check the variables whose names begin with MLFLOW_"


def _database(exc: BaseException) -> str | None:
    if not isinstance(exc, sqlite3.Error) and _room(exc) != "sqlalchemy":
        return None
    return f"A database cannot be used ({described(exc)}): see that HOTSWAP_HOME can be written and has room"


def _room(exc: BaseException) -> str:
    return type(exc).__module__.partition(".")[0]


def _rooms_below_ours(exc: BaseException) -> list[str]:
    """The packages whose code ran when it was raised, called by the last of ours."""
    rooms: list[str] = []
    step = exc.__traceback__
    while step is not None:
        room = str(step.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        rooms = [] if room in ("flows", "serving", "clients") else [*rooms, room]
        step = step.tb_next
    return rooms


def _chain(exc: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = exc
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
