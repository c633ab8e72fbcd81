"""
To which project does the current directory belong?

As git finds its repository: the nearest directory upwards that has a ``.hotswap`` or a ``models_repo``, so that a
command in a subdirectory works on the same state. A directory that is nobody's project is never found from below: the
root, the user's own home directory, and what everybody may write to (somebody else could have put a ``/tmp/.hotswap``
there). Nor is anything above them.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

_MARKERS = (".hotswap", "models_repo")


def find_project(start: Path) -> Path:
    """The directory from `start` upwards that has the state of a project; `start` itself when there is none."""
    if _has_state(start):
        return start
    for directory in start.parents:
        if _is_no_project(directory):
            break
        if _has_state(directory):
            return directory
    return start


def _has_state(directory: Path) -> bool:
    return any(os.path.isdir(directory / marker) for marker in _MARKERS)  # noqa: PTH112  (says no where it may not look)


def _is_no_project(directory: Path) -> bool:
    if directory == directory.parent or directory == Path(os.path.expanduser("~")):  # noqa: PTH111  (never raises)
        return True
    try:
        return bool(directory.stat().st_mode & stat.S_IWOTH)
    except OSError:
        return True
