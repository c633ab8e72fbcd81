"""What does a command say that fails?"""

from __future__ import annotations

import sys
import traceback

from flows.commands import foreign_errors
from flows.console.terminal import wrapped
from flows.user_code import RecipeFailed, described
from serving.protocol.errors import HotswapError
from serving.protocol.redaction import redacted

EXIT_ERROR = 1


def report(exc: Exception) -> int:
    """Say on standard error what went wrong; the exit code."""
    if isinstance(exc, HotswapError):
        details = f"; {_keep_traceback(exc)}" if isinstance(exc, RecipeFailed) else ""
        complain(f"{exc}{details}")
        return getattr(exc, "exit_code", EXIT_ERROR)
    sentence = foreign_errors.sentence(exc) or f"internal error, {described(exc)}"
    complain(f"{sentence}; {_keep_traceback(exc)}")
    return EXIT_ERROR


def complain(sentence: str) -> None:
    """Say one sentence on standard error."""
    # Redacted before it is wrapped: a secret may end on the next line.
    print(wrapped(f"hotswap: {redacted(sentence)}", sys.stderr), file=sys.stderr)


def complain_of_usage(message: str, command: str) -> None:
    """Say what was wrong with the words of a command, and where its help is."""
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
