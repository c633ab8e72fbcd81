"""
Finds the project that the current directory belongs to, as git finds its repository.

It is the nearest directory upwards that has a ``.hotswap`` or a ``models_repo``, so that a command in a subdirectory
works on the same state. The search ends at directories that are nobody's project: the root, the user's own home
directory, and what everybody may write to (somebody else could have put a ``/tmp/.hotswap`` there).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

HOME = ".hotswap"
"""the directory of the local state, in that of the project"""
_MARKERS = (HOME, "models_repo")


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


def home_named(environment: Mapping[str, str]) -> Path:
    """
    The directory of the local state, as the settings have it, which take longer to import than to read.

    Raises:
        OSError: The current directory has gone.
    """
    names = {name.upper(): name for name in environment}
    if (named := names.get("HOTSWAP_HOME")) is not None:
        return Path(environment[named])
    return find_project(Path.cwd()) / HOME


def _has_state(directory: Path) -> bool:
    return any(os.path.isdir(directory / marker) for marker in _MARKERS)  # noqa: PTH112  (says no where it may not look)


def _is_no_project(directory: Path) -> bool:
    if directory == directory.parent or directory == Path(os.path.expanduser("~")):  # noqa: PTH111  (never raises)
        return True
    try:
        return bool(directory.stat().st_mode & stat.S_IWOTH)
    except OSError:
        return True
