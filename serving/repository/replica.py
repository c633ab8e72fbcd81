"""
The models directory of one host, which a publish agent keeps equal to what a repository elsewhere has published.

It is laid out as a repository and has the identity of the one that it follows, so that commands know its server as one
of theirs. Beside that there is::

    .repository.json        whose replica this is
    .problems.json          what the agent cannot get, and why; the server reports it
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from serving.protocol.errors import RepositoryError
from serving.repository.files import write_atomically
from serving.repository.store import FOLLOWS, Repository

_PROBLEMS_FILE = ".problems.json"

_PROBLEMS_BYTES = 4096
"""taken at the start, so that there is room to tell of a full disk"""

Problems = Mapping[str, Mapping[int, str]]
"""by model and version, why the agent cannot get it"""


class Replica(Repository):
    """A models directory that follows a repository, as its agent changes it."""

    _is_the_agents = True

    def claim(self) -> None:
        """
        Make this directory a replica, before it is known of which repository.

        Raises:
            RepositoryError: It is a repository of its own, or cannot be written.
        """
        if self.is_replica:
            return
        if self.identity() is not None:
            raise RepositoryError(
                f"{self.root} is a repository of its own: set HOTSWAP_MODELS_REPO to a directory for the agent alone"
            )
        self._mark({FOLLOWS: True})

    def follow(self, repository: str) -> None:
        """
        Take over the identity of a repository; the same one may be taken over again.

        Raises:
            RepositoryError: This directory is a repository of its own, or follows another one.
        """
        known = self.identity()
        if known == repository and self.is_replica:
            return
        if known is not None:
            what = f"follows repository {known}" if self.is_replica else "is a repository of its own"
            raise RepositoryError(
                f"{self.root} {what}, and MLflow tells of repository {repository}: "
                "set HOTSWAP_MODELS_REPO to another directory, or correct MLFLOW_TRACKING_URI"
            )
        self._mark({"id": repository, FOLLOWS: True})

    def _mark(self, identity: Mapping[str, Any]) -> None:
        with self._writing():
            write_atomically(self._identity_path, json.dumps(identity) + "\n")

    @contextmanager
    def kept_by_agent(self) -> Iterator[None]:
        """
        Keep every other agent away from this directory.

        Raises:
            RepositoryError: There is one already, or the directory cannot be written.
        """
        path = self.root / ".locks" / "agent.lock"
        with self._writing():
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path)
            try:
                lock.acquire(timeout=0)
            except Timeout as exc:
                raise RepositoryError(f"Another publish agent keeps {self.root} already") from exc
        try:
            yield
        finally:
            lock.release()

    def staged_path(self, model: str, version: int) -> Path:
        """Where a version is kept while it is fetched."""
        return self._staging(model) / str(version)

    def delete_dropped(self, model: str) -> None:
        """Delete what was taken out; a server has read it whole when it loaded it."""
        shutil.rmtree(self.root / ".retired" / model, ignore_errors=True)

    def write_problems(self, problems: Problems) -> None:
        """
        Let the server report what cannot be had.

        The file is overwritten in place, as a full disk has no room for another; who reads half of it knows nothing.
        """
        text = json.dumps(problems).ljust(_PROBLEMS_BYTES - 1) + "\n"
        path = self.root / _PROBLEMS_FILE
        with suppress(OSError), path.open("r+" if path.exists() else "w", encoding="utf-8") as file:
            file.write(text)
            file.truncate()


def read_problems(root: Path) -> dict[str, dict[str, str]]:
    """What the agent of this directory cannot get; the versions are texts, as JSON has them."""
    return _read(root / _PROBLEMS_FILE)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
