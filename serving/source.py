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
import os
from collections.abc import Callable, Container, Mapping
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from stat import S_ISDIR

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


@dataclass(frozen=True, slots=True)
class Listing:
    """What is under a base path."""

    names: frozenset[str]
    """of every version"""
    aspired: Mapping[int, AspiredVersion]


class Source:
    """Tells `report` the aspired versions of every model, again and again."""

    def __init__(self, report: Callable[[str, Mapping[int, AspiredVersion]], None], poll_seconds: float) -> None:
        self._report = report
        self._poll_seconds = poll_seconds
        self._models: dict[str, Watched] = {}
        self._known: dict[str, frozenset[str]] = {}
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
            models = dict(self._models)
            listings = await asyncio.to_thread(self._list, models, by_watch)
            for name, listing in listings.items():
                if self._models.get(name) == models[name]:
                    self._take(name, listing)

    def _list(self, models: Mapping[str, Watched], by_watch: bool) -> dict[str, Listing | OSError]:
        listings: dict[str, Listing | OSError] = {}
        for name, watched in models.items():
            try:
                listings[name] = list_versions(watched, self._known.get(name, ()), by_watch)
            except OSError as exc:
                listings[name] = exc
        return listings

    def _take(self, name: str, listing: Listing | OSError) -> None:
        base_path = self._models[name].base_path
        if isinstance(listing, Listing):
            self._problems.pop(name, None)
            if not listing.names and self._known.get(name) != listing.names:
                log.warning(
                    "No versions of servable %s found under base path %s: a version is a directory whose name is a "
                    "number, such as 1",
                    name,
                    base_path,
                )
            self._known[name] = listing.names
            self._report(name, listing.aspired)
            return
        if name not in self._problems:
            log.warning(
                "Could not find base path %s for servable %s with error NOT_FOUND: %s not found (%s)",
                base_path,
                name,
                base_path,
                listing.strerror,
            )
        self._problems[name] = f"cannot list the base path {base_path}: {listing.strerror}"

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
        found = {}
        for path in sorted(paths):
            with suppress(OSError):
                stat = path.stat()
                if S_ISDIR(stat.st_mode):
                    found[str(path)] = stat.st_ino
        return found

    async def _pause(self) -> None:
        try:
            await asyncio.wait_for(self._stop_watch.wait(), self._poll_seconds)
        except TimeoutError:
            return


def list_versions(watched: Watched, known: Container[str] = (), complete_only: bool = False) -> Listing:
    """
    What is under a base path; of two names for one number the last counts, under the policy `all` the first.

    Args:
        known: The names of the versions that were there before.
        complete_only: Leave out versions that are not `known` and have no ``saved_model.pb``.

    Raises:
        OSError: The base path cannot be listed.
    """
    with os.scandir(watched.base_path) as entries:
        children = sorted(entries, key=attrgetter("name"), reverse=isinstance(watched.policy, All))
    found: dict[int, str] = {}
    for child in children:
        number = parse_version(child.name)
        if number is None or (child.is_symlink() and not Path(child).exists()):
            continue
        if complete_only and child.name not in known and not Path(child, "saved_model.pb").exists():
            continue
        found[number] = child.name
    aspired = {}
    for number in aspired_versions(found, watched.policy):
        path = watched.base_path / found[number]
        with suppress(FileNotFoundError):
            stat = path.stat()
            aspired[number] = AspiredVersion(path, (stat.st_dev, stat.st_ino))
    return Listing(frozenset(found.values()), aspired)
