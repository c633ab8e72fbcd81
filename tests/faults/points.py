"""
Points at which a real process comes to grief: before or after a step of the product.

A step is a public function, of the product or of Python, given as such: ``after(verify)`` is when `verify` has
returned, ``before(Journal.append, 2)`` when `append` is called for the second time. The functions do all that they
always do, wherever they were imported to. A point that the process does not come to is an error.
"""

from __future__ import annotations

import functools
import itertools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from flows.cli import run
from flows.promotion.bake import bake as bake_version
from flows.promotion.deployment import Deployment
from flows.promotion.labels import STABLE
from flows.registry.mlflow_registry import Registered
from flows.settings import Settings
from serving.repository.stamp import Stamp
from tests.pipelines import go_live
from tests.pipelines import make_stable as promote_published
from tests.processes import finish, run_hotswap, start

_ROOMS = ("flows", "clients", "serving")


@dataclass(frozen=True, slots=True)
class Point:
    """When a step is called for the `call`-th time, or has returned from that."""

    step: Callable[..., object]
    is_after: bool
    call: int


def before(step: Callable[..., object], call: int = 1) -> Point:
    return Point(step, False, call)


def after(step: Callable[..., object], call: int = 1) -> Point:
    return Point(step, True, call)


@contextmanager
def at(point: Point, action: Callable[[], object]) -> Iterator[None]:
    """During the block `action` is called, once, when this process comes to `point`, which it must."""
    step, calls = point.step, itertools.count(1)
    reached = False

    def watched(*args: Any, **kwargs: Any) -> Any:
        nonlocal reached
        here = next(calls) == point.call
        reached |= here
        if here and not point.is_after:
            action()
        result = step(*args, **kwargs)
        if here and point.is_after:
            action()
        return result

    with _replaced(step, watched):
        yield
    assert reached, f"it did not come to {point}"


@contextmanager
def counted(step: Callable[..., object]) -> Iterator[list[None]]:
    """The list has one entry for each call of `step` during the block."""
    calls: list[None] = []

    def watched(*args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        return step(*args, **kwargs)

    with _replaced(step, watched):
        yield calls


@contextmanager
def _replaced(step: Callable[..., object], other: Callable[..., object]) -> Iterator[None]:
    """During the block whoever calls `step` calls `other`."""
    places = list(_places(step))
    for place in places:
        setattr(place, step.__name__, functools.wraps(step)(other))
    try:
        yield
    finally:
        for place in places:
            setattr(place, step.__name__, step)


def _places(step: Callable[..., object]) -> Iterator[object]:
    """The class of a method; the module that a function is in, and those of ours that it was imported into."""
    *owners, name = step.__qualname__.split(".")
    home = sys.modules[step.__module__]
    yield functools.reduce(getattr, owners, home)
    for module_name, module in list(sys.modules.items()):
        is_ours = module is not home and module_name.partition(".")[0] in _ROOMS
        if not owners and is_ours and vars(module).get(name) is step:
            yield module


def kill_this_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed_at(point: Point, action: Callable[..., object], *args: Any) -> None:
    """Do something, as `start` does, in a process that is killed when it comes to `point`."""
    assert finish(start(dying_at, point, action, args)) == -signal.SIGKILL, f"it did not come to {point}"


def dying_at(point: Point, action: Callable[..., object], args: tuple[Any, ...]) -> None:
    """Do something in this process, which is killed when it comes to `point`."""
    with at(point, kill_this_process):
        action(*args)


def command(settings: Settings, *arguments: str) -> None:
    """``hotswap …``"""
    os.environ.update(environment(settings))
    run_hotswap(arguments)


def reconcile(settings: Settings, model: str) -> int:
    """The exit code of ``hotswap reconcile MODEL``, done in this process."""
    os.environ.update(environment(settings))
    return run(["reconcile", model])


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
