"""
Delivers the events that wait: by the operator as long as it runs, else by a command or flow at its end.

Each channel has a lock, so that one process at a time delivers; one that dies between a delivery and the note of it
delivers again. A receiver that does not take an event is tried again after a pause that grows, while the events wait on
disk.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from filelock import FileLock, Timeout
from tenacity import (
    RetryCallState,
    RetryError,
    Retrying,
    retry_if_exception_type,
    stop_after_delay,
    stop_when_event_set,
    wait_exponential,
)
from tenacity.nap import sleep_using_event

from flows.events.event import Event
from flows.events.outbox import Channel, Waiting, files, queue_directory, waiting
from flows.events.prefect import Prefect
from flows.orchestration.prefect_server import find_running_prefect
from flows.settings import Settings
from serving.protocol.errors import HotswapError

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.5
_FIRST_PAUSE_SECONDS, _MAX_PAUSE_SECONDS = 0.5, 30.0
_MAX_FAILURES = 3
"""a receiver that has not taken so many events in a row is left alone until the next pass"""
_FLUSH_SECONDS = 3.0


class Receiver(Protocol):
    """Who takes events."""

    @property
    def name(self) -> str:
        """The same in every process, without any secret."""

    def send(self, id: str, event: Event) -> None:
        """
        Hand over one event; `id` is a UUID, the same if it is sent again.

        Raises:
            HotswapError: It was not taken.
        """


@contextmanager
def delivering(settings: Settings) -> Iterator[None]:
    """Deliver everything that waits, and what comes during the block, in threads."""
    stop_requested = threading.Event()
    threads = [
        threading.Thread(target=_deliver_until, args=(settings, channel, stop_requested), name=f"deliver to {channel}")
        for channel in Channel
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop_requested.set()
        for thread in threads:
            thread.join()


def flush(settings: Settings) -> None:
    """
    Deliver what waits before this process ends, unless another one does it; this takes a few seconds at most.

    What is not taken waits on, for the next command or the operator.
    """
    for channel in Channel:
        if not files(queue_directory(settings, channel)) or not _is_reachable(settings, channel):
            continue
        if found := receivers(settings, channel):
            _flush(settings, channel, found)


@contextmanager
def flushed(settings: Settings, wanted: object) -> Iterator[None]:
    """At the end of the block, `flush` if that is wanted, as in a run that no command waits for."""
    try:
        yield
    finally:
        if wanted:
            flush(settings)


def receivers(settings: Settings, channel: Channel) -> Sequence[Receiver]:
    """Who takes the events of a channel."""
    if channel is Channel.PREFECT:
        return [Prefect(settings)]
    if not settings.notify.get_secret_value():
        return []
    from flows.events.notifications import addresses

    return addresses(settings)


def deliver(settings: Settings, channel: Channel, found: Sequence[Receiver]) -> None:
    """
    Make one pass over the queue; the lock of the channel is held.

    Raises:
        HotswapError: A receiver did not take an event, which waits on.
    """
    hands = [_Hand(receiver) for receiver in found]
    for event in waiting(settings, channel):
        for hand in hands:
            event = hand.over(event)
        if event.delivered.issuperset(hand.receiver.name for hand in hands):
            event.done()
    for hand in hands:
        if hand.error is not None:
            raise hand.error


@dataclass
class _Hand:
    """One receiver during a pass."""

    receiver: Receiver
    error: HotswapError | None = None
    failures: int = 0
    """in a row"""

    def over(self, event: Waiting) -> Waiting:
        """The event, noted as delivered once the receiver has taken it."""
        if self.receiver.name in event.delivered or self.failures >= _MAX_FAILURES:
            return event
        try:
            self.receiver.send(event.id, event.event)
        except HotswapError as exc:
            self.error, self.failures = exc, self.failures + 1
            return event
        self.failures = 0
        return event.delivered_to(self.receiver.name)


def _deliver_until(settings: Settings, channel: Channel, stop_requested: threading.Event) -> None:
    found = receivers(settings, channel)
    retrying = Retrying(
        retry=retry_if_exception_type(HotswapError),
        wait=wait_exponential(multiplier=_FIRST_PAUSE_SECONDS, max=_MAX_PAUSE_SECONDS),
        sleep=sleep_using_event(stop_requested),
        stop=stop_when_event_set(stop_requested),
        before_sleep=_report,
    )
    while found and not stop_requested.wait(_POLL_SECONDS):
        try:
            with _lock(settings, channel, timeout=_POLL_SECONDS):
                while not stop_requested.wait(_POLL_SECONDS):
                    retrying(deliver, settings, channel, found)
        except (Timeout, RetryError):
            continue
        except Exception:
            log.exception("events not delivered channel=%s", channel)


def _report(state: RetryCallState) -> None:
    if state.attempt_number == 1 and state.outcome is not None:
        log.warning("events wait to be delivered: %s", state.outcome.exception())


def _flush(settings: Settings, channel: Channel, found: Sequence[Receiver]) -> None:
    retrying = Retrying(
        retry=retry_if_exception_type(HotswapError),
        wait=wait_exponential(multiplier=_FIRST_PAUSE_SECONDS),
        stop=stop_after_delay(_FLUSH_SECONDS),
    )
    try:
        with _lock(settings, channel, timeout=0):
            retrying(deliver, settings, channel, found)
    except Timeout:
        return
    except RetryError as exc:
        log.warning("events wait to be delivered: %s", exc.last_attempt.exception())


def _is_reachable(settings: Settings, channel: Channel) -> bool:
    """Whether it is worth a try: where no Prefect runs there is none to wait for."""
    return channel is not Channel.PREFECT or find_running_prefect(settings)


def _lock(settings: Settings, channel: Channel, timeout: float) -> FileLock:
    directory = queue_directory(settings, channel)
    directory.mkdir(parents=True, exist_ok=True)
    return FileLock(directory / "lock", timeout=timeout)
