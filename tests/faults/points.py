"""
How does a real process come to grief at exactly one step?

A point is a step of the product, named by one of its functions: ``"after flows.promotion.verification:verify"`` is when
`verify` has returned, ``"before flows.journal:Journal.append 2"`` when `append` is called for the second time. The
functions do all that they always do. ``python -m tests.faults.points POINT COMMAND…`` is ``hotswap COMMAND…``, killed
at the point.
"""

from __future__ import annotations

import functools
import itertools
import multiprocessing
import os
import pkgutil
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import Any

from flows.promotion.bake import bake as bake_version
from flows.promotion.deployment import Deployment
from flows.promotion.labels import STABLE
from flows.registry.mlflow_registry import Registered
from flows.settings import Settings
from serving.repository.stamp import Stamp
from tests.pipelines import go_live
from tests.pipelines import make_stable as promote_published

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["flows.cli", __name__])  # MLflow is imported once, not by each process
_TIMEOUT_SECONDS = 120.0


@contextmanager
def at(point: str, action: Callable[[], object]) -> Iterator[None]:
    """During the block `action` is called, once, when this process comes to `point`."""
    match = re.fullmatch(r"(before|after) (\S+)[.:](\w+) ?(\d*)", point)
    assert match, point
    when, owner, name = match[1], pkgutil.resolve_name(match[2]), match[3]
    original, call, calls = getattr(owner, name), int(match[4] or 1), itertools.count(1)

    @functools.wraps(original)
    def watched(*args: Any, **kwargs: Any) -> Any:
        here = next(calls) == call
        if here and when == "before":
            action()
        result = original(*args, **kwargs)
        if here and when == "after":
            action()
        return result

    setattr(owner, name, watched)
    try:
        yield
    finally:
        setattr(owner, name, original)


def kill_this_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed_at(point: str, action: Callable[..., object], *args: Any) -> None:
    """Do something, as `start` does, in a process that is killed when it comes to `point`."""
    assert finish(start(dying_at, point, action, args)) == -signal.SIGKILL, f"it did not come to {point!r}"


def start(action: Callable[..., object], *args: Any, **environment: str) -> BaseProcess:
    """Do something in a process of its own, with this environment and what is given in addition."""
    process = _FORKS.Process(target=_run, args=({**os.environ, **environment}, action, args))
    process.start()
    return process


def finish(process: BaseProcess) -> int | None:
    """The exit code of a process, once it has ended."""
    process.join(_TIMEOUT_SECONDS)
    return process.exitcode


def command(settings: Settings, *arguments: str) -> None:
    """``hotswap …``"""
    from flows.cli import main

    os.environ.update(environment(settings))
    main(arguments)


def promote(settings: Settings, model: str, registered: Registered, stamp: Stamp, label: str = STABLE) -> None:
    """Make a registered version live, as a training does."""
    deployment = Deployment(settings, model)
    with deployment.lock():
        go_live(deployment, registered, stamp, label)


def make_stable(settings: Settings, model: str, version: int) -> None:
    """Make a published version stable, as ``hotswap promote --version`` does once the gate has passed."""
    deployment = Deployment(settings, model)
    with deployment.lock():
        promote_published(deployment, version)


def bake(settings: Settings, model: str, version: int, previous: int | None) -> None:
    """Watch a promoted version, as a training does."""
    bake_version(Deployment(settings, model), version, previous, seconds=60.0)


def environment(settings: Settings) -> dict[str, str]:
    """The variables that say the same as `settings`."""
    return {f"HOTSWAP_{name.upper()}": str(value) for name, value in settings.model_dump(exclude_none=True).items()}


def _run(variables: Mapping[str, str], action: Callable[..., object], args: tuple[Any, ...]) -> None:
    os.environ.clear()
    os.environ.update(variables)
    action(*args)


def dying_at(point: str, action: Callable[..., object], args: tuple[Any, ...]) -> None:
    """Do something in this process, which is killed when it comes to `point`."""
    with at(point, kill_this_process):
        action(*args)


if __name__ == "__main__":
    from flows.cli import main

    with at(sys.argv[1], kill_this_process):
        main(sys.argv[2:])
