"""What does a command say that fails?"""

from __future__ import annotations

import sys
import traceback

from serving.errors import HotswapError

EXIT_ERROR = 1


def report(exc: Exception) -> int:
    """Say on standard error what went wrong; the exit code."""
    if isinstance(exc, HotswapError):
        print(f"hotswap: {exc}", file=sys.stderr)
        return getattr(exc, "exit_code", EXIT_ERROR)
    print(f"hotswap: a fault of its own, {type(exc).__name__}: {exc}; {_keep_traceback()}", file=sys.stderr)
    return EXIT_ERROR


def _keep_traceback() -> str:
    from flows.settings import load_settings, prepare_home

    try:
        path = prepare_home(load_settings()) / "logs" / "error.log"
        path.write_text(traceback.format_exc(), "utf-8")
    except (HotswapError, OSError) as exc:
        return f"the details are lost: {exc}"
    return f"the details are in {path}"
