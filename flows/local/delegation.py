"""Hands `hotswap train` and `hotswap promote` over to the worker of `hotswap up`, which has everything imported."""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flows.machine import handover
from serving.protocol.errors import HotswapError

if TYPE_CHECKING:
    from flows.settings import Settings

_COMMANDS = ("train", "promote")
_OURS = Path(__file__).resolve().parents[2]
_ROOMS = tuple(_OURS / room for room in ("flows", "serving", "clients"))


class WorkerGone(HotswapError):
    """The process of the worker that carried a command out was killed."""


def socket_path(settings: Settings) -> Path:
    """Where the worker of a home takes commands."""
    return settings.home.absolute() / "worker.sock"


@functools.cache
def code() -> str:
    """What changes when hotswap's own code does."""
    return handover.fingerprint(*_ROOMS)


def delegated(arguments: Sequence[str]) -> int | None:
    """
    The exit code of a command that the worker of this home has carried out; None where it is to be done here.

    Raises:
        WorkerGone: Its process was killed.
    """
    if not arguments or arguments[0] not in _COMMANDS:
        return None
    from flows.settings import InvalidSettings, load_settings

    try:
        path = socket_path(load_settings())
    except InvalidSettings:  # which the command itself reports
        return None
    asking = handover.connect(path)
    if asking is None:
        return None
    with asking, handover.interrupts_sent(asking):
        try:
            handover.hand_over(asking, handover.Handover.of_this_process(list(arguments), code()))
        except handover.Refused as exc:
            print(f"hotswap: done here, not by the worker of `hotswap up`: {exc}", file=sys.stderr)
            return None
        try:
            return handover.exit_code(asking)
        except handover.CommandGone as exc:
            raise WorkerGone(
                "The process that did this was killed; nothing of what was live has changed, and "
                "`hotswap reconcile` finishes what it had begun"
            ) from exc
