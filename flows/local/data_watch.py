"""
Starts a training when its data has new content: a file or a folder that a deployment of Prefect names by a tag.

A change counts once it has settled: size and times of all files stay the same for a few seconds. Then the content
decides, by its digest, which is kept in ``<home>/data``: what is only touched, copied over itself, or was there before
a restart starts nothing. The file system's own notices make this quick; where there are none it is looked at all the
same.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from watchfiles import watch

from flows.orchestration import triggers
from flows.orchestration.prefect_access import PrefectUnavailable
from flows.orchestration.prefect_server import find_running_prefect
from flows.orchestration.triggers import Watched
from flows.settings import Settings
from serving.repository.files import write_atomically

log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
_ASK_SECONDS = 5.0
_READ_BYTES = 1 << 20

Traits = tuple[tuple[str, int, int], ...]
"""name, size and time of change of each file"""


@dataclass
class _Seen:
    """What was seen of the data of one deployment."""

    traits: Traits | None = None
    since: float = 0.0
    """of the monotonic clock: since when they are these"""
    judged: Traits | None = None
    """those whose content was looked at last"""


class DataWatch:
    """Looks at the data of all deployments that run when it changes."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._watched: Sequence[Watched] = ()
        self._seen: dict[str, _Seen] = {}
        self._ask_at = 0.0

    def run(self, stop_requested: threading.Event) -> None:
        """Look until a stop is requested."""
        while not stop_requested.is_set():
            places = self._places()
            for _ in _changes(places, stop_requested):
                self.ask()
                self.look()
                if self._places() != places:
                    break

    def _places(self) -> set[Path]:
        """The directories in which the data is, or will be."""
        paths = (path for each in self._watched for path in each.paths)
        return {place for path in paths if (place := path if path.is_dir() else path.parent).is_dir()}

    def look(self) -> None:
        """Start what has new content that has settled."""
        for each in self._watched:
            with suppress(OSError):  # a file went while it was looked at
                self._look_at(each, self._seen.setdefault(each.deployment, _Seen()))

    def ask(self) -> None:
        """Read from Prefect what is to be watched, where it answers, and not all the time."""
        if time.monotonic() < self._ask_at or not find_running_prefect(self._settings):
            return
        self._ask_at = time.monotonic() + _ASK_SECONDS
        try:
            self._watched = triggers.watched()
        except PrefectUnavailable as exc:
            log.warning("data not watched: %s", exc)

    def _look_at(self, watched: Watched, seen: _Seen) -> None:
        traits, now = traits_of(watched.paths), time.monotonic()
        if traits != seen.traits:
            seen.traits, seen.since = traits, now
        if traits in ((), seen.judged) or now < seen.since + self._settings.data_settle_seconds:
            return
        content = digest_of(watched.paths)
        if traits_of(watched.paths) == traits and self._judge(watched, content):
            seen.judged = traits

    def _judge(self, watched: Watched, content: str) -> bool:
        """Whether it is done with this content, which is started with unless it is known or the first one."""
        state = _state(self._settings, watched.deployment)
        known = _known(state)
        changes = 0 if known is None else known["changes"] + (content != known["digest"])
        if known is not None and content != known["digest"]:
            try:
                run = triggers.start(watched.deployment, f"{watched.deployment}-{changes}-{content}")
            except PrefectUnavailable as exc:
                log.warning("training not started, tried again: %s", exc)
                return False
            log.info("data changed, training started deployment=%s flow_run=%s", watched.name, run)
        write_atomically(state, json.dumps({"digest": content, "changes": changes}))
        return True


def start_from(settings: Settings, deployment: str, paths: Sequence[Path]) -> None:
    """Take the data as it is now for known: what is new from now on starts `deployment`."""
    state = _state(settings, deployment)
    changes = (_known(state) or {"changes": 0})["changes"]
    write_atomically(state, json.dumps({"digest": digest_of(paths), "changes": changes}))


def _state(settings: Settings, deployment: str) -> Path:
    return settings.home.absolute() / "data" / f"{deployment}.json"


def _known(state: Path) -> dict[str, Any] | None:
    return json.loads(state.read_text("utf-8")) if state.exists() else None


@contextmanager
def watching(settings: Settings) -> Iterator[None]:
    """Watch during the block, in a thread."""
    stop_requested = threading.Event()
    thread = threading.Thread(target=DataWatch(settings).run, args=(stop_requested,), name="data watch")
    thread.start()
    try:
        yield
    finally:
        stop_requested.set()
        thread.join()


def traits_of(paths: Sequence[Path]) -> Traits:
    """By file, what changes when it is written."""
    stats = ((str(file), file.stat()) for file in _files(paths))
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)


def digest_of(paths: Sequence[Path]) -> str:
    """SHA-256 of names and contents of all files."""
    whole = hashlib.sha256()
    for file in _files(paths):
        whole.update(f"{file}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as content:
            while part := content.read(_READ_BYTES):
                whole.update(part)
    return whole.hexdigest()


def _files(paths: Sequence[Path]) -> list[Path]:
    """The files there, in order; hidden ones, such as those of an unfinished copy, are left out."""
    found = [file for path in paths for file in ([path] if path.is_file() else path.rglob("*"))]
    return sorted({file for file in found if file.is_file() and not file.name.startswith(".")})


def _changes(places: Collection[Path], stop_requested: threading.Event) -> Iterator[None]:
    """Yield when something has changed there, and once a second, until a stop is requested."""
    if not places:
        while not stop_requested.wait(_LOOK_SECONDS):
            yield
        return
    pause = int(_LOOK_SECONDS * 1000)
    for _ in watch(*places, stop_event=stop_requested, rust_timeout=pause, yield_on_timeout=True, debounce=pause):
        yield
