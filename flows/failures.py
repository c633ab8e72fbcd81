"""What does a command say that fails?"""

from __future__ import annotations

import sys
import traceback

from flows.terminal import wrapped
from serving.errors import HotswapError
from serving.redaction import redacted

EXIT_ERROR = 1


def report(exc: Exception) -> int:
    """Say on standard error what went wrong; the exit code."""
    if isinstance(exc, HotswapError):
        complain(str(exc))
        return getattr(exc, "exit_code", EXIT_ERROR)
    complain(f"a fault of its own, {type(exc).__name__}: {exc}; {_keep_traceback()}")
    return EXIT_ERROR


def complain(sentence: str) -> None:
    """Say one sentence on standard error."""
    # Redacted before it is wrapped: a secret may end on the next line.
    print(wrapped(f"hotswap: {redacted(sentence)}", sys.stderr), file=sys.stderr)


def complain_of_usage(message: str, command: str) -> None:
    """Say what was wrong with the words of a command, and where its help is."""
    see = f"see `{command} --help`"
    complain(f"{message} S{see[1:]}" if message.endswith("?") else f"{message.rstrip('.')}; {see}")


def _keep_traceback() -> str:
    from flows.settings import load_settings, prepare_home

    try:
        path = prepare_home(load_settings()) / "logs" / "error.log"
        path.write_text(redacted(traceback.format_exc()), "utf-8")
    except (HotswapError, OSError) as exc:
        return f"the details are lost: {exc}"
    return f"the details are in {path}"
