"""
Hands `hotswap train` and `hotswap promote` over to the worker of `hotswap up`, which has everything imported.

So this imports next to nothing, not even the settings.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from flows.home import home_named
from flows.machine import handover

_COMMANDS = ("train", "promote")
_OURS = Path(__file__).resolve().parents[2]
_ROOMS = tuple(_OURS / room for room in ("flows", "serving", "clients"))


def socket_path(home: Path) -> Path:
    """Where the worker of a home takes commands."""
    return home.absolute() / "worker.sock"


@functools.cache
def code() -> str:
    """What changes when hotswap's own code does."""
    return handover.fingerprint(*_ROOMS)


def delegated(arguments: Sequence[str]) -> int | None:
    """
    The exit code of a command that the worker of this home has carried out; None where it is to be done here.

    Raises:
        CommandGone: Its process was killed.
    """
    if not arguments or arguments[0] not in _COMMANDS:
        return None
    try:
        asking = handover.connect(socket_path(home_named(os.environ)))
    except OSError:  # the current directory has gone, which the command itself reports
        return None
    if asking is None:
        return None
    with asking, handover.interrupts_sent(asking):
        try:
            handover.hand_over(asking, handover.Handover.of_this_process(list(arguments), code()))
        except handover.Refused as exc:
            print(f"hotswap: done here, not by the worker of `hotswap up`: {exc}", file=sys.stderr)
            return None
        return handover.exit_code(asking)
