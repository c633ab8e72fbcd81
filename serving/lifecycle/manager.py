"""
Takes every version through its states, from its start to its end.

The source says which versions are aspired; the manager loads and unloads until that is what is served. A new version is
loaded and warmed up beside the old one, becomes the served one by one assignment, and only then the old one is retired:
it is freed when its last request ends. Loading, warm-up and unloading happen in threads; all bookkeeping happens on the
event loop's thread.

Every version goes its own way: one that cannot be loaded, or waits for its next try, holds up nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
import weakref
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from serving.protocol.errors import GraphError
from serving.protocol.version_status import State, VersionStatus
from serving.runtime.servable import Servable

log = logging.getLogger(__name__)

Loader = Callable[[str, int, Path], Servable]


@dataclass(frozen=True, slots=True)
class AspiredVersion:
    """A version that should be served; `identity` differs for another directory put in its place."""

    path: Path
    identity: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a load is tried again, and after how long."""

    retries: int = 5
    interval_seconds: float = 60.0


class _Attempt:
    """The directory that a load was tried from; held open, so that no other one can get its inode."""

    def __init__(self, aspired: AspiredVersion) -> None:
        self.identity = aspired.identity
        with suppress(OSError):
            descriptor = os.open(aspired.path, os.O_RDONLY | os.O_NONBLOCK)  # it may be a pipe
            weakref.finalize(self, os.close, descriptor)
            stat = os.fstat(descriptor)
            self.identity = stat.st_dev, stat.st_ino


class _Version:
    def __init__(self, number: int) -> None:
        self.number = number
        self.aspired: AspiredVersion | None = None
        self.state = State.START
        self.code = grpc.StatusCode.OK
        self.message = ""
        self.servable: Servable | None = None
        self.attempted: _Attempt | None = None
        self.unaspired = asyncio.Event()

    @property
    def status(self) -> VersionStatus:
        return VersionStatus(self.number, self.state, self.code, self.message)

    @property
    def should_load(self) -> bool:
        """Aspired, and not yet tried as it now is."""
        if self.aspired is None or self.state not in (State.START, State.END):
            return False
        return self.attempted is None or self.attempted.identity != self.aspired.identity


class _Model:
    def __init__(self) -> None:
        self.versions: dict[int, _Version] = {}
        self.latest: Servable | None = None


class Manager:
    """
    Loads what is aspired, unloads what is not, keeps answering meanwhile.

    `on_change` is called whenever what is available may have changed, before anybody can ask for it.
    """

    def __init__(self, loader: Loader, retry: RetryPolicy, threads: int, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._loader = loader
        self._retry = retry
        self._models: dict[str, _Model] = {}
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="load")
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def set_aspired(self, name: str, versions: Mapping[int, AspiredVersion]) -> None:
        """From now on exactly these versions of a model should be served."""
        model = self._models.setdefault(name, _Model())
        for number in versions:
            model.versions.setdefault(number, _Version(number))
        for version in model.versions.values():
            version.aspired = versions.get(version.number)
            if version.aspired is None:
                version.attempted = None
                version.unaspired.set()
            else:
                version.unaspired.clear()
        self._step(name)

    def models(self) -> list[str]:
        """Every model that was ever aspired."""
        return sorted(self._models)

    def servables(self) -> list[Servable]:
        """Every servable that is available now."""
        versions = [version for model in self._models.values() for version in model.versions.values()]
        return [version.servable for version in versions if version.state is State.AVAILABLE and version.servable]

    def latest(self, name: str) -> Servable | None:
        """The highest available version of a model."""
        model = self._models.get(name)
        return model.latest if model else None

    def servable(self, name: str, version: int) -> Servable | None:
        """This version of a model, if it is available."""
        model = self._models.get(name)
        found = model.versions.get(version) if model else None
        return found.servable if found and found.state is State.AVAILABLE else None

    def statuses(self, name: str) -> list[VersionStatus]:
        """The states of all versions ever seen of a model, highest first."""
        model = self._models.get(name)
        return [model.versions[number].status for number in sorted(model.versions, reverse=True)] if model else []

    def is_loading(self, name: str, version: int) -> bool:
        """Whether this version should be served, and is neither available nor given up yet."""
        model = self._models.get(name)
        found = model.versions.get(version) if model else None
        return found is not None and found.aspired is not None and found.state in (State.START, State.LOADING)

    def is_emptied(self, name: str) -> bool:
        """Whether this model has had versions, of which none is aspired any more."""
        model = self._models.get(name)
        if model is None or not model.versions:
            return False
        return all(version.aspired is None for version in model.versions.values())

    async def wait_available(
        self, names: Iterable[str], default_version: Callable[[str], int | None] = lambda name: None
    ) -> dict[str, VersionStatus]:
        """
        Wait until each of these models has a version available, or has failed.

        The `default_version` of a model decides alone, unless it is not to be served or cannot be loaded. Without it,
        looked at from the highest aspired version down, the first that ended before one was available is the failure.
        What is below a version that is still being loaded may have ended: it does not count yet.

        Returns:
            The models that failed, each with the error of that version.
        """
        names = list(names)
        while True:
            self._changed.clear()
            outcomes = {name: self._outcome(name, default_version(name)) for name in names}
            if None not in outcomes.values():
                return {name: status for name, status in outcomes.items() if status and status.state is State.END}
            await self._changed.wait()

    async def close(self) -> None:
        """Unload everything, after the last request of each."""
        for name in self._models:
            self.set_aspired(name, {})
        while self._tasks:
            await asyncio.wait(self._tasks)
        self._pool.shutdown()

    def _outcome(self, name: str, default: int | None) -> VersionStatus | None:
        """The version that is available or decides that the model has failed; None while that is open."""
        versions = self._models.get(name, _Model()).versions
        if default is not None and self.is_loading(name, default):
            return None
        if default in versions and versions[default].state is State.AVAILABLE:
            return versions[default].status
        is_open = False
        for number in sorted(versions, reverse=True):
            version = versions[number]
            if version.state is State.AVAILABLE or (version.aspired and version.state is State.END and not is_open):
                return version.status
            is_open = is_open or version.aspired is not None
        return None

    def _step(self, name: str) -> None:
        """Begin whatever the rules of an availability-preserving transition allow now; unloading comes first."""
        versions = self._models[name].versions.values()
        surplus = sorted(
            (version for version in versions if not version.aspired and version.state is State.AVAILABLE),
            key=lambda version: version.number,
        )
        aspired = [version for version in versions if version.aspired]
        if aspired and not any(version.state is State.AVAILABLE for version in aspired):
            surplus = surplus[:-1]
        for version in surplus:
            self._begin(version, State.UNLOADING, self._unload(name, version))
        self._choose_latest(name)
        for version in sorted(aspired, key=lambda version: version.number, reverse=True):
            if version.should_load:
                self._begin(version, State.LOADING, self._load(name, version))
        self._changed.set()
        self._on_change()

    def _begin(self, version: _Version, state: State, work: Coroutine[Any, Any, None]) -> None:
        version.state = state
        version.code, version.message = grpc.StatusCode.OK, ""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _load(self, name: str, version: _Version) -> None:
        aspired = version.aspired
        assert aspired is not None
        version.attempted = _Attempt(aspired)
        for attempt in range(self._retry.retries + 1):
            started = time.perf_counter()
            try:
                servable = await self._loop.run_in_executor(
                    self._pool, self._loader, name, version.number, aspired.path
                )
            except GraphError as exc:
                log.warning("load failed model=%s version=%d attempt=%d: %s", name, version.number, attempt + 1, exc)
                version.code, version.message = exc.code, exc.message
            except Exception as exc:
                log.exception("load failed model=%s version=%d attempt=%d", name, version.number, attempt + 1)
                version.code, version.message = grpc.StatusCode.INTERNAL, f"{type(exc).__name__}: {exc}"
            else:
                log.info(
                    "version available model=%s version=%d seconds=%.3f",
                    name,
                    version.number,
                    time.perf_counter() - started,
                )
                self._make_available(name, version, servable)
                return
            if attempt < self._retry.retries and not await self._pause(version):
                break
        version.state = State.END
        self._step(name)

    async def _pause(self, version: _Version) -> bool:
        """Wait for the next try with a clean status, as LOADING shows no error; False if there is to be none."""
        error = version.code, version.message
        version.code, version.message = grpc.StatusCode.OK, ""
        try:
            await asyncio.wait_for(version.unaspired.wait(), self._retry.interval_seconds)
        except TimeoutError:
            return True
        version.code, version.message = error
        return False

    def _make_available(self, name: str, version: _Version, servable: Servable) -> None:
        version.code, version.message = grpc.StatusCode.OK, ""
        version.servable = servable
        version.attempted = None
        version.state = State.AVAILABLE
        self._step(name)

    async def _unload(self, name: str, version: _Version) -> None:
        servable = version.servable
        assert servable is not None
        version.servable = None
        log.info("version unloading model=%s version=%d", name, version.number)
        idle = asyncio.Event()

        def tell_idle() -> None:
            self._loop.call_soon_threadsafe(idle.set)

        servable.retire(tell_idle)
        await idle.wait()
        await self._loop.run_in_executor(self._pool, servable.close)
        log.info("version unloaded model=%s version=%d", name, version.number)
        version.state = State.END
        version.attempted = None
        self._step(name)

    def _choose_latest(self, name: str) -> None:
        model = self._models[name]
        ready = [version for version in model.versions.values() if version.state is State.AVAILABLE]
        model.latest = max(ready, key=lambda version: version.number).servable if ready else None
