"""Ctrl-C falls where it leaves no lock behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from queue import Queue
from types import FrameType

import pytest

from flows.local.interrupts import defer_sigint, stop_on_signals

ROUNDS = 200


@pytest.fixture(autouse=True)
def default_interrupt() -> Iterator[None]:
    """Whoever runs the tests in the background of a shell has Ctrl-C turned off."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_no_lock_stays_locked() -> None:
    """As when a training hands a line of its log to Prefect's thread; without care, one interrupt in ten leaves one."""
    lines: Queue[int] = Queue()

    def hand_over() -> None:
        lines.put(sum(range(100)))
        lines.get()

    with defer_sigint():
        for _ in interrupted(hand_over):
            assert not lines.mutex.locked()


def test_an_alarm_above_the_handler_is_no_way_out() -> None:
    """On a busy machine it comes while the handler calls something of Python's own, which holds no lock itself."""

    class Held:
        locked = False

        def __enter__(self) -> None:
            self.locked = True
            signal.raise_signal(signal.SIGINT)

        def __exit__(self, *_: object) -> None:
            self.locked = False

    def look_again(frame: FrameType, event: str, _: object) -> None:
        if event == "return" and frame.f_code is signal.signal.__code__:
            signal.raise_signal(signal.SIGALRM)

    def hold() -> None:
        before = sys.getprofile()
        sys.setprofile(look_again)
        try:
            with held:
                while True:
                    pass
        finally:
            sys.setprofile(before)

    held = Held()
    with defer_sigint(), pytest.raises(KeyboardInterrupt):
        hold()
    assert not held.locked


def test_a_finalizer_does_not_swallow_it() -> None:
    """Python prints what a finalizer raises, and continues."""

    class Finalized:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    def drop_and_go_on() -> None:
        Finalized()
        while True:
            pass

    with defer_sigint(), pytest.raises(KeyboardInterrupt):
        drop_and_go_on()


def test_a_thread_that_waits_for_a_lock_is_interrupted() -> None:
    taken = threading.Lock()
    taken.acquire()
    sender = threading.Timer(0.1, signal.pthread_kill, (threading.get_ident(), signal.SIGINT))
    sender.start()
    with defer_sigint(), pytest.raises(KeyboardInterrupt), threading.Condition(taken):
        pass
    sender.join()


def test_a_command_is_interrupted_so() -> None:
    program = """
import signal, threading
from flows import cli
from flows.commands.application import app

class Held:
    lock = threading.Lock()

    def __enter__(self):
        self.lock.acquire()
        signal.raise_signal(signal.SIGINT)

    def __exit__(self, *_):
        self.lock.release()

@app.command()
def hold():
    try:
        with Held():
            while True:
                pass
    finally:
        print(Held.lock.locked())

cli.main(["hold"])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (130, "False\n"), done.stderr


def test_what_the_caller_has_set_stays() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with defer_sigint():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with defer_sigint():
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_signal_requests_the_stop_whoever_holds_the_lock_of_the_event() -> None:
    """A handler that set it itself would wait for the very thread that it interrupts, for ever."""
    before = signal.getsignal(signal.SIGTERM)
    stop_requested = threading.Event()
    try:
        stop_on_signals(stop_requested)
        with stop_requested._cond:  # type: ignore[attr-defined]  # held for a moment in `wait`
            signal.raise_signal(signal.SIGTERM)
        assert stop_requested.wait(10)
    finally:
        signal.signal(signal.SIGTERM, before)


def interrupted(work: Callable[[], None]) -> Iterator[None]:
    """Do `work` again and again, until Ctrl-C comes; so often, and each time at another place."""
    main, go = threading.get_ident(), threading.Lock()
    go.acquire()

    def interrupt() -> None:
        for number in range(ROUNDS):
            go.acquire()
            for _ in range(number % 97 * 10):
                pass
            signal.pthread_kill(main, signal.SIGINT)

    def work_on() -> None:
        go.release()
        while True:
            work()

    thread = threading.Thread(target=interrupt, daemon=True)  # else a failure would hold up the end of all tests
    thread.start()
    for _ in range(ROUNDS):
        with pytest.raises(KeyboardInterrupt):
            work_on()
        yield
    thread.join()
