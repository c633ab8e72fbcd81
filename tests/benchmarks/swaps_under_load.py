"""Measures how much slower the slowest answers are while versions are swapped."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

from clients.rest_client import RestClient
from tests.benchmarks import load, servers
from tests.benchmarks.load import Load
from tests.benchmarks.payloads import Form, iris_rows, request_body
from tests.benchmarks.report import Measurement, spread
from tests.benchmarks.servers import Running
from tests.benchmarks.versions import put, wait_answered

CONCURRENCY = 8
ROUNDS = 9
SECONDS = 6
SECONDS_BETWEEN_SWAPS = 0.5
MAX_TIMES_THE_STEADY_P99 = 2.5


def measure(directory: Path, saved_model: Path) -> Iterator[Measurement]:
    """
    A load without swaps and a load with one every half second, in turn on one server.

    Both of a round meet the same machine, so what counts is the median of the rounds' ratios.
    """
    base_path = directory / "swapped"
    put(saved_model, base_path, 1)
    last_version = 1
    with servers.hotswap_iris(directory, base_path) as server:
        rounds: list[tuple[float, float]] = []
        for _ in range(ROUNDS):
            steady = _load(server)
            swapped, last_version = _load_with_swaps(server, saved_model, base_path, last_version)
            rounds.append((steady.p99_seconds, swapped.p99_seconds))
        with RestClient(server.rest_url) as client:
            wait_answered(client, last_version)
    besides = f"{last_version - 1} swaps"
    yield Measurement("p99, REST, 1 row, concurrency 8, steady", 1e3 * median(before for before, _ in rounds), "ms")
    yield Measurement("p99, a swap every 0.5 s", 1e3 * median(during for _, during in rounds), "ms", besides=besides)
    ratios = [during / before for before, during in rounds]
    what = "  p99 during hot swaps, of the steady p99"
    yield Measurement(what, median(ratios), "x", MAX_TIMES_THE_STEADY_P99, besides=spread(ratios))


def _load(server: Running) -> Load:
    return load.run(server, Form.ROWS, request_body(Form.ROWS, iris_rows(1)), CONCURRENCY, SECONDS)


def _load_with_swaps(server: Running, saved_model: Path, base_path: Path, version: int) -> tuple[Load, int]:
    """Also the last version that was put in."""
    with ThreadPoolExecutor(1) as background:
        under_load = background.submit(_load, server)
        while not under_load.done():
            time.sleep(SECONDS_BETWEEN_SWAPS)
            version += 1
            put(saved_model, base_path, version)
        return under_load.result(), version
