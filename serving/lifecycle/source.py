"""
Finds the versions on disk that should be served.

Every base path is listed at once, then once per poll interval, and what is there at that moment decides, as in
TensorFlow Serving. On top, the base paths are watched, so that a version that was renamed in is known within
milliseconds. The watch only ever adds: it sees every step of a change that a poll sees as one, and by taking away what
one step removes it could leave nothing to serve. Removals, replacements and what may be incomplete wait for the poll.

A base path that is missing, or cannot be read, changes nothing for its model and nothing at all for the others.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from stat import S_ISDIR

import watchfiles

from serving.lifecycle.manager import AspiredVersion
from serving.repository.saved_model_files import variables_files
from serving.repository.version_policy import All, VersionPolicy, aspired_versions, parse_version

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

    numbers: frozenset[int]
    """of every version"""
    aspired: Mapping[int, AspiredVersion]


class Source:
    """Tells `report` the aspired versions of every model, again and again."""

    def __init__(self, report: Callable[[str, Mapping[int, AspiredVersion]], None], poll_seconds: float) -> None:
        self._report = report
        self._poll_seconds = poll_seconds
        self._models: dict[str, Watched] = {}
        self._listings: dict[str, Listing] = {}
        self._problems: dict[str, str] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._stop_watch = asyncio.Event()
        self._lock = asyncio.Lock()
        self._stopped = False

    async def set_models(self, models: Mapping[str, Watched]) -> None:
        """
        From now on look after these models; no version of any other is aspired any more.

        What is new or has changed is listed now, of all others only additions are looked for: it is not for whoever
        changes one model to say when the versions of another are taken away.
        """
        before, self._models = self._models, dict(models)
        for name, watched in before.items():
            if models.get(name) != watched:
                self._listings.pop(name, None)
            if name not in models:
                self._problems.pop(name, None)
                self._report(name, {})
        self._stop_watch.set()
        if self._poll_seconds >= 0:
            await self._look(additions_only=self._poll_seconds > 0)

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

    async def poll(self) -> None:
        """List every base path once and report what is aspired."""
        await self._look()

    async def _look(self, additions_only: bool = False) -> None:
        async with self._lock:
            models = dict(self._models)
            listings = await asyncio.to_thread(self._list, models, additions_only)
            for name, listing in listings.items():
                if self._models.get(name) == models[name]:
                    self._take(name, listing)

    def _list(self, models: Mapping[str, Watched], additions_only: bool) -> dict[str, Listing | OSError]:
        listings: dict[str, Listing | OSError] = {}
        for name, watched in models.items():
            before = self._listings.get(name) if additions_only else None
            try:
                listings[name] = list_versions(watched) if before is None else with_additions(watched, before)
            except OSError as exc:
                if before is None:
                    listings[name] = exc
        return listings

    def _take(self, name: str, listing: Listing | OSError) -> None:
        base_path = self._models[name].base_path
        if isinstance(listing, Listing):
            self._problems.pop(name, None)
            before = self._listings.get(name)
            if not listing.numbers and (before is None or before.numbers):
                log.warning(
                    "No versions of servable %s found under base path %s: a version is a directory whose name is a "
                    "number, such as 1",
                    name,
                    base_path,
                )
            self._listings[name] = listing
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
        """Look for additions at every change under these directories, until they are others."""
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
                await self._look(additions_only=True)
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


def list_versions(watched: Watched) -> Listing:
    """
    What is under a base path; of two names for one number the last counts, under the policy `all` the first.

    Raises:
        OSError: The base path cannot be listed.
    """
    with _opened(watched.base_path) as directory:
        found = _found(watched, directory)
        return Listing(frozenset(found), _aspired(aspired_versions(found, watched.policy), found, directory))


def with_additions(watched: Watched, before: Listing) -> Listing:
    """
    `before`, and the versions that have been added since, are complete and wanted; what is gone counts as still there.

    Raises:
        OSError: The base path cannot be listed.
    """
    with _opened(watched.base_path) as directory:
        new = {number: path for number, path in _found(watched, directory).items() if number not in before.numbers}
        new = {number: path for number, path in new.items() if was_put_in_place_whole(path)}
        wanted = aspired_versions({*before.numbers, *new}, watched.policy)
        added = _aspired((number for number in wanted if number in new), new, directory)
    return Listing(before.numbers | new.keys(), {**before.aspired, **added}) if new else before


def was_put_in_place_whole(path: Path) -> bool:
    """
    Has a SavedModel got its name when all of its files were there already, as by a rename or a link?

    Then nothing in it has changed since the directory itself did. In one that is being copied, files are younger than
    the directory; and until it has variables, it is not known whether it should have some.
    """
    try:
        placed = max(path.stat().st_ctime_ns, path.lstat().st_ctime_ns)
        files = {each.relative_to(path).as_posix(): each.stat() for each in path.rglob("*")}
        variables = variables_files(path)
    except OSError:  # it is changing
        return False
    there = {name for name, stat in files.items() if stat.st_size}
    has_all = bool(there & {"saved_model.pb", "saved_model.pbtxt"}) and bool(variables) and there.issuperset(variables)
    return has_all and all(stat.st_ctime_ns <= placed for stat in files.values())


@contextmanager
def _opened(base_path: Path) -> Iterator[int]:
    """The directory itself: one that is renamed meanwhile has not lost its versions."""
    directory = os.open(base_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield directory
    finally:
        os.close(directory)


def _found(watched: Watched, directory: int) -> dict[int, Path]:
    """The path of every version."""
    with os.scandir(directory) as entries:
        children = sorted(entries, key=attrgetter("name"), reverse=isinstance(watched.policy, All))
    found: dict[int, Path] = {}
    for child in children:
        number = parse_version(child.name)
        if number is not None and not (child.is_symlink() and _stat(child.name, directory) is None):
            found[number] = watched.base_path / child.name
    return found


def _aspired(numbers: Iterable[int], paths: Mapping[int, Path], directory: int) -> dict[int, AspiredVersion]:
    stats = {number: _stat(paths[number].name, directory) for number in numbers}
    return {number: AspiredVersion(paths[number], (stat.st_dev, stat.st_ino)) for number, stat in stats.items() if stat}


def _stat(name: str, directory: int) -> os.stat_result | None:
    """Of what is there; None if nothing is, or a link that leads nowhere."""
    try:
        return os.stat(name, dir_fd=directory)
    except OSError as exc:
        if exc.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise
