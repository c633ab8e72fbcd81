"""
Keeps the garbage collector away from what is imported.

TensorFlow, Keras, MLflow and Prefect make a million objects that stay. By default the collector looks through them
again and again while they are imported, a quarter of the processor time that this takes, and whenever it runs later.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Nothing is collected during the block."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
