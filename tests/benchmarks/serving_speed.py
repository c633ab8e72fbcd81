"""
Measures answers against handlers that do nothing, ``mlflow models serve``, and the real TensorFlow Serving.

The servers are asked in turn, round after round: those of a round meet the same machine, so what counts is the median
of the rounds' ratios. Of each server the best round is shown. The real one takes part where the environment variable
TENSORFLOW_MODEL_SERVER names its binary.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import reduce
from pathlib import Path
from statistics import median

from rich.console import Console

from tests.benchmarks import load, servers, swaps_under_load
from tests.benchmarks.load import Load
from tests.benchmarks.payloads import Form, answers, check, iris_rows, request_body
from tests.benchmarks.plot import Curves, draw
from tests.benchmarks.report import Measurement, number, spread
from tests.benchmarks.servers import PROJECT, NotStarted, Running
from tests.benchmarks.versions import put

CONCURRENCIES = (1, 8, 32, 64)
BATCHES = (1, 32, 1000)
ROUNDS = 15
ROUNDS_ONE_AT_A_TIME = 45
"""One row, one at a time: between two requests the processor rests, and how fast it wakes differs most of all."""
MLFLOW_CONCURRENCY = 8
MLFLOW_SECONDS = 3
VALUES_PER_ROW = 4 + 3

MAX_TIMES_THE_EMPTY_MEDIAN = 2.3
MIN_SHARE_OF_EMPTY = {("REST", 32): 0.6, ("gRPC", 64): 0.45}
MIN_VALUES_PER_SECOND = {Form.ROWS: 1e6, Form.COLUMNS: 1e6, Form.CONTENT: 1e7, Form.FIELDS: None}

BESIDE_THROUGHPUT = {("REST", 32): "2.7 × its requests", ("gRPC", 64): "2.07 × its requests"}
BESIDE_TIME = {"REST": "0.54 × its time", "gRPC": "1.2 to 1.5 × its time"}
BESIDE_LARGE = {Form.ROWS: "4 to 7 × its requests", Form.CONTENT: "0.9 to 1.0 × its requests"}
"""How this compares with TensorFlow Serving 2.20, measured in one run on two cores."""

Rounds = dict[str, list[Load]]
"""The loads of each server, in the order of the rounds."""

console = Console(stderr=True)


def measure() -> list[Measurement]:
    """Every form, concurrency and batch; draws docs/benchmark.svg."""
    for line in load.missing_tools():
        console.print(line)
    curves: Curves = {}
    with tempfile.TemporaryDirectory(prefix="hotswap-bench-") as name:
        directory = Path(name)
        saved_model = directory / "saved_model"
        servers.export_iris(saved_model)
        put(saved_model, directory / "iris", 1)
        with ExitStack() as running:
            contenders = [
                running.enter_context(servers.hotswap_iris(directory, directory / "iris")),
                running.enter_context(servers.empty_handlers(directory)),
            ]
            if binary := os.environ.get("TENSORFLOW_MODEL_SERVER"):
                contenders.append(
                    running.enter_context(servers.tensorflow_serving(binary, directory, directory / "iris"))
                )
            check_answers(contenders, saved_model)
            measured = [*_one_row(contenders, curves), *_batches(contenders)]
        if load.is_possible(Form.ROWS):
            measured += [*_mlflow(directory, saved_model, curves), *swaps_under_load.measure(directory, saved_model)]
    draw(curves, PROJECT / "docs" / "benchmark.svg")
    return measured


def check_answers(contenders: Sequence[Running], saved_model: Path) -> None:
    """Everybody but the empty handler answers what the model answers, in every form."""
    for batch in BATCHES:
        rows = iris_rows(batch)
        expected = answers(saved_model, rows)
        for server in contenders:
            for form in Form:
                if server.name != servers.EMPTY:
                    check(server, form, rows, expected)


def race(contenders: Sequence[Running], form: Form, batch: int, concurrency: int, count: int = ROUNDS) -> Rounds:
    """Every server's rounds, the servers in turn."""
    console.print(f"{form.value}, {batch} rows, concurrency {concurrency}")
    body = request_body(form, iris_rows(batch))
    rounds: Rounds = {server.name: [] for server in contenders}
    for _ in range(count):
        for server in contenders:
            rounds[server.name].append(load.run(server, form, body, concurrency))
    return rounds


def best(loads: Iterable[Load]) -> Load:
    """The best of some rounds."""
    return reduce(Load.best, loads)


def _one_row(contenders: Sequence[Running], curves: Curves) -> Iterator[Measurement]:
    for form in filter(load.is_possible, (Form.ROWS, Form.CONTENT)):
        for concurrency in CONCURRENCIES:
            rounds = race(contenders, form, 1, concurrency, ROUNDS_ONE_AT_A_TIME if concurrency == 1 else ROUNDS)
            for server, loads in rounds.items():
                found = best(loads)
                label = f"{server}, {'REST' if form.is_rest else 'gRPC'}"
                curves.setdefault(label, {})[concurrency] = found.requests_per_second
                yield _rate(f"{form.value}, 1 row, concurrency {concurrency}: {server}", found)
            yield from _against_empty(form, concurrency, rounds)


def _against_empty(form: Form, concurrency: int, rounds: Rounds) -> Iterator[Measurement]:
    pairs = list(zip(rounds[servers.HOTSWAP], rounds[servers.EMPTY], strict=True))
    shares = [ours.requests_per_second / empty.requests_per_second for ours, empty in pairs]
    protocol = "REST" if form.is_rest else "gRPC"
    asked = f"  {protocol}, one row, concurrency {concurrency}"
    yield Measurement(
        f"{asked}: requests per second, of the empty handler's",
        median(shares),
        "x",
        at_least=MIN_SHARE_OF_EMPTY.get((protocol, concurrency)),
        besides=spread(shares),
        beside_tensorflow_serving=BESIDE_THROUGHPUT.get((protocol, concurrency), ""),
    )
    if concurrency == 1:
        times = [ours.median_seconds / empty.median_seconds for ours, empty in pairs]
        yield Measurement(
            f"{asked}: median time, of the empty handler's",
            median(times),
            "x",
            MAX_TIMES_THE_EMPTY_MEDIAN,
            besides=spread(times),
            beside_tensorflow_serving=BESIDE_TIME[protocol],
        )


def _batches(contenders: Sequence[Running]) -> Iterator[Measurement]:
    real = [server for server in contenders if server.name != servers.EMPTY]
    for form in filter(load.is_possible, Form):
        for batch in BATCHES:
            rounds = race(real, form, batch, 1)
            for server, loads in rounds.items():
                found = best(loads)
                yield _rate(f"{form.value}, {batch:,} rows, one at a time: {server}", found)
                if batch == max(BATCHES):
                    yield _values_per_second(form, batch, server, found)
            if servers.TENSORFLOW_SERVING in rounds:
                pairs = zip(rounds[servers.HOTSWAP], rounds[servers.TENSORFLOW_SERVING], strict=True)
                shares = [ours.requests_per_second / theirs.requests_per_second for ours, theirs in pairs]
                at_least = 1.0 if batch == max(BATCHES) else None
                what = f"  {form.value}, {batch:,} rows: requests per second, of TensorFlow Serving's"
                yield Measurement(what, median(shares), "x", at_least=at_least, besides=spread(shares))


def _values_per_second(form: Form, batch: int, server: str, found: Load) -> Measurement:
    """Per core that the server kept busy, and per second of the clock where it kept less than one busy."""
    values = found.requests_per_second * batch * VALUES_PER_ROW / max(1.0, found.cores)
    least = MIN_VALUES_PER_SECOND[form] if server == servers.HOTSWAP else None
    return Measurement(
        f"  {form.value}, {batch:,} rows: values per second and core",
        values / 1e6,
        "million/s",
        None,
        least and least / 1e6,
        f"{number(found.cores)} cores busy",
        BESIDE_LARGE.get(form, "") if server == servers.HOTSWAP else "",
    )


def _mlflow(directory: Path, saved_model: Path, curves: Curves) -> Iterator[Measurement]:
    console.print("mlflow models serve")
    rows = iris_rows(1)
    try:
        with servers.mlflow_models_serve(directory, saved_model) as server:
            check(server, Form.ROWS, rows, answers(saved_model, rows))
            found = load.run(server, Form.ROWS, request_body(Form.ROWS, rows), MLFLOW_CONCURRENCY, MLFLOW_SECONDS)
    except NotStarted as exc:
        console.print(f"mlflow models serve is left out: {exc}")
        return
    curves[server.name] = {MLFLOW_CONCURRENCY: found.requests_per_second}
    yield _rate(f"REST, 1 row, concurrency {MLFLOW_CONCURRENCY}: {server.name}", found)


def _rate(what: str, found: Load) -> Measurement:
    besides = f"median {number(found.median_seconds * 1e3)} ms, p99 {number(found.p99_seconds * 1e3)} ms"
    return Measurement(what, found.requests_per_second, "/s", besides=besides)
