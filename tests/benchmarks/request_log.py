"""What does a request log cost at 10 % sampling? Two servers, one with a log, are asked in turn, round after round."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median

from tests.benchmarks import load, servers
from tests.benchmarks.payloads import Form
from tests.benchmarks.report import Measurement, spread
from tests.benchmarks.servers import Running
from tests.benchmarks.serving_speed import best, race
from tests.benchmarks.versions import put

ROUNDS = 25
WITHOUT, WITH = "no log", "10 % logged"
LOADS = ((Form.ROWS, 1, 32), (Form.CONTENT, 1, 64), (Form.CONTENT, 1000, 1))
"""form, rows and concurrency"""
MIN_SHARE = 0.97
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
            Measurement("resident memory, more with a log", logged - plain, "MB", MAX_MEGABYTES, None, besides),
        ]


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
