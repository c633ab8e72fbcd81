"""
Workers of pytest-xdist that have imported everything, which takes each of them some five seconds of processor time.

To xdist the program is a Python that reads its first line from standard input.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType

from tests.forked_programs import forked_program


@contextmanager
def forked_workers() -> Iterator[str]:
    """What xdist's option ``--tx`` is for workers that are forked during the block."""
    with (
        tempfile.TemporaryDirectory() as directory,
        forked_program(Path(directory), partial(_work, dict(os.environ))) as program,
    ):
        yield f"popen//python={program}"


def _work(environment: Mapping[str, str], _: list[str]) -> int:
    """Be ``python -c 'import sys; exec(eval(sys.stdin.readline()))'``, as which xdist starts a worker."""
    from prefect.context import refresh_global_settings_context

    os.environ.clear()
    os.environ.update(environment)
    refresh_global_settings_context()
    sys.argv = ["-c"]
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115  # it stays open
    sys.modules["__main__"] = main = ModuleType("__main__")
    exec(eval(sys.stdin.readline()), vars(main))
    return 0
