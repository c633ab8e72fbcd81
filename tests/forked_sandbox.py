"""
A sandbox that is there at once: for HOTSWAP_SANDBOX_SERVER, a program with the flags of ``tensorflow_model_server``.

The server is our own, and a process of its own, but forked from one that has imported everything, where
``python -m serving`` takes a second of processor time. Trainings of tests that are not about the sandbox may have it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from serving.cli import main
from tests.forked_programs import forked_program


def forked_sandboxes(directory: Path) -> AbstractContextManager[Path]:
    """The program, whose servers are forked during the block."""
    return forked_program(directory, main)
