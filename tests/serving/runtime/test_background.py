"""What prepares a version steps back, and further at first."""

from __future__ import annotations

import os
import sys

import pytest

from serving.runtime.background import LATER_NICENESS, NICENESS, Background
from tests.waiting import until


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere all threads of a process have one priority")
def test_a_version_that_takes_long_is_prepared_at_a_higher_priority_then() -> None:
    """On a busy machine it would wait for ever; the next version begins at the lowest again."""
    own = os.getpriority(os.PRIO_PROCESS, 0)
    background = Background(1)
    try:
        native = background.for_version()
        assert native(os.getpriority, os.PRIO_PROCESS, 0) == min(19, own + NICENESS)
        until(lambda: native(os.getpriority, os.PRIO_PROCESS, 0) == min(19, own + LATER_NICENESS))
        assert background.for_version()(os.getpriority, os.PRIO_PROCESS, 0) == min(19, own + NICENESS)
    finally:
        background.close()
