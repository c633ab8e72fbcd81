"""How does a version appear, and when does it answer?"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from clients.rest_client import RestClient

ROW = [[5.1, 3.5, 1.4, 0.2]]
TIMEOUT_SECONDS = 30.0


class NeverAnswered(Exception):
    """A version did not become available."""


def put(source: Path, base_path: Path, version: int) -> float:
    """Copy `source` aside, then rename it in; the `time.perf_counter` of the rename."""
    staged = base_path.parent / f"staged-{base_path.name}-{version}"
    shutil.copytree(source, staged)
    base_path.mkdir(exist_ok=True)
    renamed = time.perf_counter()
    staged.rename(base_path / str(version))
    return renamed


def wait_answered(client: RestClient, version: int) -> None:
    """Return when Iris is answered by this version."""
    deadline = time.perf_counter() + TIMEOUT_SECONDS
    while client.predict("iris", ROW).version != version:
        if time.perf_counter() > deadline:
            raise NeverAnswered(f"version {version} of iris never answered")


def swap(client: RestClient, source: Path, base_path: Path, version: int) -> float:
    """The seconds from the rename of a version to the first answer of it."""
    renamed = put(source, base_path, version)
    wait_answered(client, version)
    return time.perf_counter() - renamed


def wait_available(client: RestClient, versions: Mapping[str, int]) -> None:
    """Return when so many versions of each model are available, and all others have ended."""
    deadline = time.perf_counter() + TIMEOUT_SECONDS
    for model, count in versions.items():
        while [status.state.name for status in client.status(model)].count("AVAILABLE") != count:
            if time.perf_counter() > deadline:
                raise NeverAnswered(f"{model} has not {count} versions available")
            time.sleep(0.02)
