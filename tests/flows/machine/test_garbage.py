"""Imports that nobody collects garbage in."""

from __future__ import annotations

import gc
from contextlib import suppress

import pytest

from flows.machine.garbage import uncollected


@pytest.mark.parametrize("collecting", [True, False])
def test_nothing_is_collected_during_the_block(collecting: bool) -> None:
    """After it, also after an import that fails, the collector is as it was before."""
    before = gc.isenabled()
    try:
        (gc.enable if collecting else gc.disable)()
        with suppress(ImportError), uncollected():
            assert not gc.isenabled()
            raise ImportError
        assert gc.isenabled() is collecting
    finally:
        (gc.enable if before else gc.disable)()
