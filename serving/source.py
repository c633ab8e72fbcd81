"""
Which versions are on disk?

Every base path is listed at once, then once per poll interval. On top, the base paths are watched, so that a version
that was renamed in is known within milliseconds. A watch sees a directory that is still being copied earlier than a
poll would, so a new version counts at once only if its ``saved_model.pb`` is there; else the next poll decides.

A base path that is missing, or cannot be read, changes nothing for its model and nothing at all for the others.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import watchfiles

from serving.manager import AspiredVersion
from serving.version_policy import All, VersionPolicy, aspired_versions, parse_version

log = logging.getLogger(__name__)

WATCH_QUIET_MILLISECONDS = 10
WATCH_LONGEST_MILLISECONDS = 50


@dataclass(frozen=True, slots=True)
class Watched:
    """One model to look after."""

    base_path: Path
    policy: VersionPolicy


class Source:
    """Tells `report` the aspired versions of every model, again and again."""

    def __init__(self, report: Callable[[str, Mapping[int, AspiredVersion]], None], poll_seconds: float) -> None:
        self._report = report
        self._poll_seconds = poll_seconds
        self._models: dict[str, Watched] = {}
        self._known: dict[str, set[Path]] = {}
        self._problems: dict[str, str] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._stop_watch = asyncio.Event()
        self._lock = asyncio.Lock()
        self._stopped = False

    async def set_models(self, models: Mapping[str, Watched]) -> None:
        """From now on look after these models, beginning with a poll; no version of any other is aspired any more."""
        dropped = [name for name in self._models if name not in models]
        self._models = dict(models)
        for name in dropped:
            self._problems.pop(name, None)
            self._report(name, {})
        self._stop_watch.set()
        if self._poll_seconds >= 0:
            await self.poll()

    def start(self) -> None:
        """Begin to poll and to watch; an interval of zero means that the first poll is the only one."""
        if self._poll_seconds > 0:
            self._tasks = [asyncio.create_task(self._poll_for_ever()), asyncio.create_task(self._watch_for_ever())]

    async def stop(self) -> None:
        """End polling and watching."""
        self._stopped = True
        self._stop_watch.set()
        for task in self._tasks[:1]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def problem(self, name: str) -> str:
        """Why no new version of this model can be seen; empty where all is well."""
        return self._problems.get(name, "")

    async def poll(self, by_watch: bool = False) -> None:
        """List every base path once and report what is aspired."""
        async with self._lock:
            await asyncio.gather(*(self._poll_model(name, watched, by_watch) for name, watched in self._models.items()))

    async def _poll_model(self, name: str, watched: Watched, by_watch: bool) -> None:
        try:
            on_disk = await asyncio.to_thread(list_versions, watched, self._known.get(name, set()), by_watch)
        except OSError as exc:
            if name not in self._problems:
                log.warning(
                    "Could not find base path %s for servable %s with error NOT_FOUND: %s not found (%s)",
                    watched.base_path,
                    name,
                    watched.base_path,
                    exc.strerror,
                )
            if self._models.get(name) == watched:
                self._problems[name] = f"cannot list the base path {watched.base_path}: {exc.strerror}"
            return
        if self._models.get(name) == watched:
            self._problems.pop(name, None)
            self._known[name] = {version.path for version in on_disk.values()}
            aspired = aspired_versions(on_disk, watched.policy)
            self._report(name, {number: on_disk[number] for number in aspired})

    async def _poll_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._poll_seconds)
            await self.poll()

    async def _watch_for_ever(self) -> None:
        while not self._stopped:
            self._stop_watch.clear()
            bases = self._existing_bases()
            try:
                await (self._watch(bases) if bases else self._pause())
            except (OSError, RuntimeError) as exc:
                log.warning("cannot watch the base paths, polling goes on: %s", exc)
                await self._pause()

    async def _watch(self, bases: Mapping[str, int]) -> None:
        """Poll at every change under these directories, until one of them is another one or a new one is there."""
        changes = watchfiles.awatch(
            *bases,
            recursive=False,
            watch_filter=None,
            debounce=WATCH_LONGEST_MILLISECONDS,
            step=WATCH_QUIET_MILLISECONDS,
            rust_timeout=1000,
            yield_on_timeout=True,
            stop_event=self._stop_watch,
        )
        async for change in changes:
            if change:
                await self.poll(by_watch=True)
            if self._existing_bases() != bases:
                self._stop_watch.set()

    def _existing_bases(self) -> dict[str, int]:
        """The base paths that are directories, each with its inode."""
        paths = {watched.base_path for watched in self._models.values()}
        return {str(path): path.stat().st_ino for path in sorted(paths) if path.is_dir()}

    async def _pause(self) -> None:
        try:
            await asyncio.wait_for(self._stop_watch.wait(), self._poll_seconds)
        except TimeoutError:
            return


def list_versions(watched: Watched, known: set[Path], complete_only: bool) -> dict[int, AspiredVersion]:
    """
    The versions under a base path; of two names for one number the last wins, under the policy `all` the first.

    Args:
        complete_only: Leave out versions that are not `known` yet and have no ``saved_model.pb``.

    Raises:
        OSError: The base path cannot be listed.
    """
    found: dict[int, AspiredVersion] = {}
    for child in sorted(watched.base_path.iterdir(), reverse=isinstance(watched.policy, All)):
        number = parse_version(child.name)
        if number is None:
            continue
        if complete_only and child not in known and not (child / "saved_model.pb").exists():
            continue
        try:
            stat = child.stat()
        except FileNotFoundError:
            continue
        found[number] = AspiredVersion(child, (stat.st_dev, stat.st_ino))
    return found
