"""
Handles SIGINT and SIGTERM where they do no harm.

Python raises KeyboardInterrupt wherever the main thread is. Between taking a lock and the block that gives it back,
that lock is held for ever: the next thread that hands Prefect a line of its log waits for it, and the command never
ends. Raised in a finalizer, it is printed and forgotten. So it waits here until the main thread has left such code.
"""

from __future__ import annotations

import _thread
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_MODULES_WITH_LOCKS = frozenset({"_weakrefset", "logging", "queue", "threading", "weakref"})
_AROUND_A_BLOCK = frozenset({"__enter__", "__exit__"})
_AGAIN_SECONDS = 0.001
_LOOKS = 100
"""They are counted, not timed: a busy machine lets a second pass in which the main thread gets nowhere."""


@contextmanager
def defer_sigint() -> Iterator[None]:
    """
    For the block, Ctrl-C is raised where the main thread holds no lock that would stay locked, and in no finalizer.

    A main thread that is in such code at each of many looks, a tenth of a second long, waits there for something, and
    is interrupted. Where Ctrl-C is ignored or has another handler, nothing changes.
    """
    in_main = threading.current_thread() is threading.main_thread()  # no other can set a handler
    if not in_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    looks = 0
    alarm = signal.getsignal(signal.SIGALRM)

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal looks
        if number == signal.SIGALRM and not looks:
            return  # it came while Ctrl-C was being raised
        looks = 1 if number == signal.SIGINT else looks + 1
        if looks < _LOOKS and not _is_safe(frame):
            signal.signal(signal.SIGALRM, interrupt)
            # Again and again: one alarm that comes just before the main thread waits for a lock does not wake it up.
            signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS, _AGAIN_SECONDS)
        else:
            looks = 0
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, alarm)
        signal.signal(signal.SIGINT, signal.default_int_handler)


def stop_on_signals(stop_requested: threading.Event) -> None:
    """
    SIGINT and SIGTERM set `stop_requested`, from now on.

    A thread sets it: the one that the handler interrupts may hold the event's lock, and would wait for itself. It is a
    bare thread, as `threading` has locks of its own.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: _thread.start_new_thread(stop_requested.set, ()))


def _is_safe(frame: FrameType | None) -> bool:
    """Above our own handler nothing is: on a busy machine the alarm comes while that, or what it calls, still runs."""
    if frame is not None and (
        frame.f_globals.get("__name__") in _MODULES_WITH_LOCKS or frame.f_code.co_name in _AROUND_A_BLOCK
    ):
        return False
    while frame is not None:
        if frame.f_code.co_name == "__del__" or frame.f_globals is globals():
            return False
        frame = frame.f_back
    return True
