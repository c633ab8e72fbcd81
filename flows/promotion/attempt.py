"""One step of an undo: it is tried whatever became of the steps before it, so that everything that can be undone is."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from serving.protocol.errors import HotswapError

log = logging.getLogger(__name__)


def attempt(step: str, action: Callable[[], Any]) -> Any:
    """Return what `action` returns; a failure is only logged, and gives None."""
    try:
        return action()
    except HotswapError as exc:
        log.error("undo step failed step=%s error=%s", step, exc)
        return None
