"""
One process to fork from for all workers of pytest-xdist: what it imports takes five seconds of processor time.

The process that starts the workers starts it. `multiprocessing` has no public way to use the one of another process;
where its private one is not as it is here, each worker has its own, which `tests/test_shared_forks.py` tells.
"""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing import forkserver, resource_tracker

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.preloaded"])
_SERVER = getattr(forkserver, "_forkserver", None)
_KNOWN = ("_forkserver_address", "_forkserver_alive_fd", "_forkserver_pid", "ensure_running")
_IS_AS_KNOWN = all(hasattr(_SERVER, name) for name in _KNOWN)
_VARIABLE = "PYTEST_FORKS_FROM"


def share() -> None:
    """Start it; whoever is started from now on can join. It ends with this process."""
    if _SERVER and _IS_AS_KNOWN:
        _SERVER.ensure_running()
        os.environ[_VARIABLE] = os.fsencode(vars(_SERVER)["_forkserver_address"]).hex()


def join() -> None:
    """Fork from the one that is shared, if one is."""
    address = os.environ.pop(_VARIABLE, None)
    if address is None or not _IS_AS_KNOWN:
        return
    _, alive = os.pipe()  # each fork gets one; whether the shared process lives on is up to who has started it
    vars(_SERVER).update(
        _forkserver_address=os.fsdecode(bytes.fromhex(address)),
        _forkserver_alive_fd=alive,
        ensure_running=resource_tracker.ensure_running,
    )


def forget_tracker() -> None:
    """Let a fork that has closed what its parent had open start a resource tracker of its own when it needs one."""
    if tracker := getattr(resource_tracker, "_resource_tracker", None):
        vars(tracker).update(_fd=None)
