"""A loaded version, and what is left of it."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import numpy as np

from serving.servable import LoadOptions, load


def test_nothing_is_left_of_a_closed_version(tiny_model: Any, tmp_path: Path) -> None:
    """Its graph goes at once: a server that swaps for long does not grow while it waits for a garbage collection."""
    path = tiny_model(tmp_path, 1)
    gc.collect()
    gc.disable()
    try:
        servable = load("tiny", 1, path, LoadOptions())
        call, arrays = servable.bind(
            servable.signatures["serving_default"], {"input": np.array([[1, 2, 3, 4]], np.float32)}
        )
        assert call(arrays)[0].shape == (1, 3)
        graph = weakref.ref(servable._session.graph)
        servable.close()
        del servable, call
        assert graph() is None
    finally:
        gc.enable()
