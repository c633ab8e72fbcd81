"""Does a server that swaps for long grow, and what does a loaded version cost?"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from clients.rest_client import RestClient
from serving.repository.model_config import ModelEntry, render
from serving.repository.version_policy import All
from tests.benchmarks import servers
from tests.benchmarks.report import Measurement
from tests.benchmarks.versions import put, swap, wait_available

WARM_UP_SWAPS = 20
SWAPS = 200
MAX_GROWTH_PERCENT = 10.0
VERSIONS = 20
MAX_MEGABYTES_PER_VERSION = 8.0


def measure() -> list[Measurement]:
    """Resident memory after many swaps, and with many versions loaded."""
    with tempfile.TemporaryDirectory(prefix="hotswap-bench-") as name:
        directory = Path(name)
        saved_model = directory / "saved_model"
        servers.export_iris(saved_model)
        return [*_many_swaps(directory, saved_model), *_many_versions(directory, saved_model)]


def _many_swaps(directory: Path, saved_model: Path) -> Iterator[Measurement]:
    base_path = directory / "swapped"
    put(saved_model, base_path, 1)
    swapped = 1 + WARM_UP_SWAPS
    with servers.hotswap_iris(directory, base_path) as server, RestClient(server.rest_url) as client:
        _swap_all(client, saved_model, base_path, range(2, 1 + swapped))
        before = server.memory
        _swap_all(client, saved_model, base_path, range(1 + swapped, 1 + swapped + SWAPS))
        after = server.memory
    yield Measurement(f"resident memory after {WARM_UP_SWAPS} swaps of Iris", before, "MB")
    yield Measurement(f"resident memory {SWAPS} swaps later", after, "MB")
    yield Measurement(
        f"  growth of resident memory over {SWAPS} swaps of Iris", 100 * (after / before - 1), "%", MAX_GROWTH_PERCENT
    )


def _swap_all(client: RestClient, saved_model: Path, base_path: Path, versions: Iterable[int]) -> None:
    """Each version answers before the next comes; the one before is deleted."""
    for version in versions:
        swap(client, saved_model, base_path, version)
        shutil.rmtree(base_path / str(version - 1))
    wait_available(client, {"iris": 1})


def _many_versions(directory: Path, saved_model: Path) -> Iterator[Measurement]:
    base_path = directory / "kept"
    put(saved_model, base_path, 1)
    config = directory / "models.config"
    config.write_text(render([ModelEntry("iris", str(base_path), All())]))
    flag = f"--model_config_file={config}"
    with servers.hotswap(directory, flag) as server, RestClient(server.rest_url) as client:
        before = server.memory
        for version in range(2, 1 + VERSIONS):
            put(saved_model, base_path, version)
        wait_available(client, {"iris": VERSIONS})
        after = server.memory
    each = (after - before) / (VERSIONS - 1)
    besides = f"{before:.0f} MB with one, {after:.0f} MB with {VERSIONS}"
    yield Measurement("each further version of Iris", each, "MB", MAX_MEGABYTES_PER_VERSION, besides=besides)
