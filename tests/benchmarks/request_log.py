"""
What does a request log cost at 10 % sampling?

Two servers, one with a log, are asked in turn, round after round. What the log takes of the thread that answers is
measured by itself too, as that differs less from run to run: by processor time, in turns with and without a log.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median, quantiles

import numpy as np

from serving.inference.batching import Result
from serving.inference.data_plane import DataPlane
from serving.protocol.signature import DEFAULT_SIGNATURE
from serving.settings import ServerSettings
from serving.startup import configured_models
from tests.benchmarks import load, servers
from tests.benchmarks.payloads import Form
from tests.benchmarks.report import Measurement, number, spread
from tests.benchmarks.servers import Running
from tests.benchmarks.serving_speed import best, race
from tests.benchmarks.versions import put

ROUNDS = 25
WITHOUT, WITH = "no log", "10 % logged"
LOADS = ((Form.ROWS, 1, 32), (Form.CONTENT, 1, 64), (Form.CONTENT, 1000, 1))
"""form, rows and concurrency"""
MIN_SHARE = 0.97
MAX_MICROSECONDS = 0.5
"""3 % of what a request of one row takes of the thread that answers"""
SPELLS, TURNS, AT_ONCE = 400, 50, 32
MAX_MEGABYTES = 64
"""twice what may wait to be written"""


def measure() -> list[Measurement]:
    """Requests per second with a log over those without one, for one row over REST and gRPC, and many rows."""
    with tempfile.TemporaryDirectory(prefix="hotswap-bench-") as name, ExitStack() as running:
        directory = Path(name)
        servers.export_iris(directory / "saved_model")
        put(directory / "saved_model", directory / "iris", 1)
        log = (f"--request_log_directory={directory / 'log'}", "--request_log_sampling_rate=0.1")
        contenders = [
            running.enter_context(_server(directory, title, *flags)) for title, flags in ((WITHOUT, ()), (WITH, log))
        ]
        asked = [each for each in LOADS if load.is_possible(each[0])]
        measured = [each for form, rows, at_once in asked for each in _compared(contenders, form, rows, at_once)]
        plain, logged = (each.memory for each in contenders)
        besides = f"{plain:.0f} MB without"
        return [
            *measured,
            _microseconds(directory),
            Measurement("resident memory, more with a log", logged - plain, "MB", MAX_MEGABYTES, None, besides),
        ]


def _microseconds(directory: Path) -> Measurement:
    settings = ServerSettings(
        model_name="iris",
        model_base_path=str(directory / "iris"),
        request_log_directory=directory / "log of the loop",
        request_log_sampling_rate=0.1,
    )
    plain, logged = asyncio.run(_quick_spells(settings))
    besides = f"{number(plain)} without, of the quicker fifth"
    return Measurement(
        "processor time of the loop, more with a log", logged - plain, "µs", MAX_MICROSECONDS, None, besides
    )


async def _quick_spells(settings: ServerSettings) -> tuple[float, float]:
    """How many microseconds a request takes without and with a log where nothing disturbed it."""
    data_plane = DataPlane(settings)
    await data_plane.models.start(*configured_models(settings))
    log = data_plane.request_log
    await _spell(data_plane)
    spells: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(SPELLS):
        for is_logged, found in spells.items():
            data_plane.request_log = log if is_logged else None
            found.append(await _spell(data_plane))
    data_plane.request_log = log
    await data_plane.close()
    plain, logged = (quantiles(found, n=5)[0] for found in spells.values())
    return plain, logged


async def _spell(data_plane: DataPlane) -> float:
    """Microseconds of this thread for each of some requests, as many a turn as come at once under load."""
    servable = data_plane.models.servable("iris", 1)
    assert servable is not None
    row = np.ones((1, 4), np.float32)
    call, _ = data_plane.bind(servable, servable.signatures[DEFAULT_SIGNATURE], {"input": row})
    answered = 0

    def done(result: Result) -> None:
        nonlocal answered
        answered += not isinstance(result, Exception)

    started = time.thread_time()
    for turn in range(1, TURNS + 1):
        for _ in range(AT_ONCE):
            data_plane.submit(call, [row.copy()], done)
        while answered < turn * AT_ONCE:
            await asyncio.sleep(0)
    return (time.thread_time() - started) / answered * 1e6


@contextmanager
def _server(directory: Path, title: str, *flags: str) -> Iterator[Running]:
    place = directory / title
    place.mkdir()
    with servers.hotswap(place, "--model_name=iris", f"--model_base_path={directory / 'iris'}", *flags) as server:
        yield replace(server, name=title)


def _compared(contenders: Sequence[Running], form: Form, rows: int, at_once: int) -> Iterator[Measurement]:
    rounds = race(contenders, form, rows, at_once, ROUNDS)
    pairs = zip(rounds[WITH], rounds[WITHOUT], strict=True)
    shares = [logged.requests_per_second / plain.requests_per_second for logged, plain in pairs]
    what = f"{form.value}, {rows:,} rows, concurrency {at_once}"
    for title, loads in rounds.items():
        yield Measurement(f"{what}: {title}", best(loads).requests_per_second, "/s")
    yield Measurement("  requests per second, of those without", median(shares), "x", None, MIN_SHARE, spread(shares))
