"""
Starts TensorFlow without a page of notes about the processor and the graphics card.

Its C++ code writes them to standard error whatever ``TF_CPP_MIN_LOG_LEVEL`` says. While it is imported, standard error
is held back; afterwards everything that is no such note is written out.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

_NOTE = re.compile(
    rb"[IWE]\d{4} .*(oneDNN|cudart_stub|cuda_platform|cpu_feature_guard)|WARNING: All log messages before absl::|"
    rb"To enable the following instructions:"
)


@contextmanager
def without_start_up_notes() -> Iterator[None]:
    """Hold standard error back during the block, and drop TensorFlow's notes from it, where there is a place for it."""
    try:
        held_back = tempfile.TemporaryFile()  # noqa: SIM115  (its block comes below)
    except OSError:
        yield
        return
    sys.stderr.flush()
    real = os.dup(2)
    with held_back:
        os.dup2(held_back.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(real, 2)
            os.close(real)
            held_back.seek(0)
            for line in held_back:
                if not _NOTE.match(line):
                    os.write(2, line)
