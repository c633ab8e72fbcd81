"""Waits for what another process, thread or server comes to by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest
from tenacity import RetryCallState, Retrying, retry_if_result, stop_after_delay, wait_exponential, wait_fixed

T = TypeVar("T")

_OFTEN_THEN_RARELY = wait_exponential(multiplier=0.02, exp_base=1.1, max=0.25)
"""a tenth of the time that has passed: who looks all the time takes the processor from what is waited for"""


def until(found: Callable[[], T], seconds: float = 90.0, *, looking_every: float | None = None) -> T:
    """What `found` returns, once that is true; the test fails when it is not in time."""

    def fail(state: RetryCallState) -> T:
        last = state.outcome.result() if state.outcome else None
        pytest.fail(f"still {last!r} after {seconds:g} s")

    retrying = Retrying(
        retry=retry_if_result(lambda value: not value),
        wait=_OFTEN_THEN_RARELY if looking_every is None else wait_fixed(looking_every),
        stop=stop_after_delay(seconds),
        retry_error_callback=fail,
    )
    return retrying(found)
