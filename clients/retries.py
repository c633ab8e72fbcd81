"""Retries calls while the server is unavailable."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    stop_before_delay,
    wait_exponential_jitter,
)

from serving.protocol.errors import ServerUnavailable

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 3
MIN_TIMEOUT_SECONDS = 0.001

T = TypeVar("T")


def call_with_retries(call: Callable[[float], T], timeout_seconds: float) -> T:
    """
    Call, and again while the server is unavailable: at most three times, and never beyond the timeout.

    Args:
        call: Given how many seconds remain.
    """
    deadline = time.monotonic() + timeout_seconds
    retrying = Retrying(
        retry=retry_if_exception_type(ServerUnavailable),
        stop=stop_after_attempt(MAX_ATTEMPTS) | stop_before_delay(timeout_seconds),
        wait=wait_exponential_jitter(initial=0.2, jitter=0.1),
        before_sleep=_log_pause,
        reraise=True,
    )
    return retrying(lambda: call(max(deadline - time.monotonic(), MIN_TIMEOUT_SECONDS)))


def _log_pause(state: RetryCallState) -> None:
    log.info("server unavailable attempt=%d wait_seconds=%.2f", state.attempt_number, state.upcoming_sleep)
