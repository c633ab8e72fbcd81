"""Makes a temporary directory for a block; no message names it, as it is gone when the message is read."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from serving.protocol.errors import HotswapError


@contextmanager
def workspace() -> Iterator[Path]:
    """An empty directory; errors of the block name what was in it relative to it."""
    with tempfile.TemporaryDirectory(prefix="hotswap-") as name:
        try:
            yield Path(name)
        except HotswapError as exc:
            exc.args = tuple(without(name, each) if isinstance(each, str) else each for each in exc.args)
            raise


def without(directory: Path | str, text: str) -> str:
    """`text` with paths below `directory` relative to it."""
    return text.replace(f"{directory}/", "").replace(str(directory), "the workspace")


def still_there(path: str) -> str:
    """`path`, or the nearest directory above it that has not gone meanwhile."""
    where = Path(path)
    return path if where.parent.exists() else str(next(each for each in where.parents if each.exists()))
