"""The versions that are being fetched: a few at a time, so that a slow one holds up no other, each tried again."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from flows.fleet.fetching import Unwanted, Wanted, fetch
from flows.registry.fleet_registry import FleetRegistry
from serving.protocol.redaction import redacted
from serving.repository.replica import Replica

log = logging.getLogger(__name__)

_AT_A_TIME = 4
_PAUSE_SECONDS, _MAX_PAUSE_SECONDS = 1.0, 60.0

Version = tuple[str, int]
"""a model and one of its versions"""


@dataclass
class _Download:
    digest: str
    result: Future[Path] | None = None
    failures: int = 0
    retry_at: float = 0.0
    """of the monotonic clock"""
    problem: str = ""


class Downloads:
    """Fetches the versions that are wanted."""

    def __init__(
        self, replica: Replica, registry: FleetRegistry, wake: Callable[[], None], trusted_keys_file: Path | None
    ) -> None:
        """`wake` is called, by another thread, when one has come or failed."""
        self._trusted_keys_file = trusted_keys_file
        self._replica = replica
        self._registry = registry
        self._wake = wake
        self._pool = ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix="fetch")
        self._wanted: dict[Version, _Download] = {}
        self._stopped = threading.Event()

    def want(self, model: str, versions: Mapping[int, str]) -> None:
        """Fetch these versions of a model, by their digests, and no others of it."""
        for key in [key for key in self._wanted if key[0] == model and key[1] not in versions]:
            del self._wanted[key]
        for version, digest in versions.items():
            found = self._wanted.setdefault((model, version), _Download(digest))
            if found.result is None and time.monotonic() >= found.retry_at:
                found.result = self._pool.submit(self._fetch, (model, version), found)
                found.result.add_done_callback(lambda _: self._wake())

    def take_fetched(self) -> dict[Version, Path]:
        """The versions that have come since the last call, and where they are staged."""
        fetched: dict[Version, Path] = {}
        for key, found in list(self._wanted.items()):
            if found.result is None or not found.result.done():
                continue
            if (exc := found.result.exception()) is None:
                fetched[key] = found.result.result()
                del self._wanted[key]
            else:
                self._note_failure(key, found, exc)
        return fetched

    def problems(self) -> dict[str, dict[int, str]]:
        """By model and version, why it could not be fetched."""
        found: dict[str, dict[int, str]] = {}
        for (model, version), each in self._wanted.items():
            if each.problem:
                found.setdefault(model, {})[version] = each.problem
        return found

    @property
    def is_stuck(self) -> bool:
        """Whether something is wanted, and all of it has failed."""
        return bool(self._wanted) and all(each.result is None and each.problem for each in self._wanted.values())

    def stop(self) -> None:
        """End after the files that are being fetched."""
        self._stopped.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _fetch(self, key: Version, wanted: _Download) -> Path:
        files = self._registry.files_of(*key)

        def is_wanted() -> bool:
            return self._wanted.get(key) is wanted and not self._stopped.is_set()

        return fetch(self._replica, files, Wanted(*key, wanted.digest), is_wanted, self._trusted_keys_file)

    def _note_failure(self, key: Version, found: _Download, exc: BaseException) -> None:
        pause = min(_PAUSE_SECONDS * 2**found.failures, _MAX_PAUSE_SECONDS)
        found.result, found.failures, found.retry_at = None, found.failures + 1, time.monotonic() + pause
        problem = redacted(str(exc)) or type(exc).__name__
        if not isinstance(exc, Unwanted) and problem != found.problem:
            log.warning("version not fetched model=%s version=%d error=%s", *key, problem)
            found.problem = problem
