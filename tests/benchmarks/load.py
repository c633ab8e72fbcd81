"""
How many requests per second does a server answer, and how long does each take?

wrk asks over HTTP/1.1, h2load over gRPC; both keep `concurrency` requests in flight for so many seconds. A run in which
any request failed is no measurement.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.benchmarks.payloads import PREDICT_METHOD, Form, ask
from tests.benchmarks.servers import Running

SECONDS = 1
"""How long one run takes: short, as the machine may be faster or slower a few seconds later."""
MAX_EXTRA_SECONDS = 30.0
MAX_CONNECTIONS = 8
_SCRIPT = Path(__file__).with_name("post.lua")
_TOOLS = {"wrk": "wrk", "h2load": "nghttp2-client"}


class LoadFailed(Exception):
    """A load generator failed, or a request of it did."""


@dataclass(frozen=True, slots=True)
class Load:
    """What one run showed; `cores` is how many of them the server kept busy."""

    requests_per_second: float
    median_seconds: float
    p99_seconds: float
    cores: float

    def best(self, other: Load) -> Load:
        """The better of two runs in each respect: what else ran on the machine only makes it worse."""
        faster = max(self, other, key=lambda load: load.requests_per_second)
        return Load(
            faster.requests_per_second,
            min(self.median_seconds, other.median_seconds),
            min(self.p99_seconds, other.p99_seconds),
            faster.cores,
        )


def missing_tools() -> list[str]:
    """A line for each load generator that is not installed."""
    return [
        f"{tool} is missing, its rows are left out: sudo apt-get install {package}"
        for tool, package in _TOOLS.items()
        if not shutil.which(tool)
    ]


def is_possible(form: Form) -> bool:
    """Is the load generator there that speaks this?"""
    return shutil.which("wrk" if form.is_rest else "h2load") is not None


def run(server: Running, form: Form, body: bytes, concurrency: int, seconds: int = SECONDS) -> Load:
    """
    Ask the same again and again.

    Raises:
        LoadFailed: Not every request was answered well.
    """
    with tempfile.TemporaryDirectory(prefix="hotswap-load-") as directory:
        generate = _wrk if form.is_rest else _h2load
        return generate(server, form, body, concurrency, seconds, Path(directory))


def _wrk(server: Running, form: Form, body: bytes, concurrency: int, seconds: int, directory: Path) -> Load:
    body_file = directory / "body"
    body_file.write_bytes(body)
    command = ["wrk", "-t1", f"-c{concurrency}", f"-d{seconds}s", "-s", str(_SCRIPT)]
    before = server.processor_seconds
    output = _output([*command, server.rest_url + server.predict_path, "--", str(body_file)], seconds)
    used = server.processor_seconds - before
    result = json.loads(output.splitlines()[-1])
    if result["failed"] or not result["requests"]:
        raise LoadFailed(f"{server.name}, {form.value}, concurrency {concurrency}: {result}")
    duration = result["duration"] / 1e6
    return Load(result["requests"] / duration, result["p50"] / 1e6, result["p99"] / 1e6, used / duration)


def _h2load(server: Running, form: Form, body: bytes, concurrency: int, seconds: int, directory: Path) -> Load:
    body_file, times_file = directory / "body", directory / "times"
    body_file.write_bytes(_framed(body))
    connections = min(concurrency, MAX_CONNECTIONS)
    command = ["h2load", "-t1", f"-c{connections}", f"-m{concurrency // connections}", f"-D{seconds}"]
    command += ["-H", "content-type: application/grpc", "-H", "te: trailers", "-d", str(body_file)]
    answer_size = len(_framed(ask(server, form, body)))
    before = server.processor_seconds
    output = _output(
        [*command, f"--log-file={times_file}", f"http://127.0.0.1:{server.grpc_port}{PREDICT_METHOD}"], seconds
    )
    used = server.processor_seconds - before
    requests_per_second, succeeded, failed = _h2load_counts(output, answer_size)
    if failed or not succeeded:
        raise LoadFailed(f"{server.name}, {form.value}, concurrency {concurrency}:\n{output}")
    times = np.loadtxt(times_file, dtype=np.int64, delimiter="\t", usecols=2, ndmin=1) / 1e6
    median, p99 = np.percentile(times, (50, 99))
    return Load(requests_per_second, float(median), float(p99), used * requests_per_second / succeeded)


def _h2load_counts(output: str, answer_size: int) -> tuple[float, int, int]:
    """Requests per second, requests that were answered well, and others."""
    counts = {name: int(count) for count, name in re.findall(r"(\d+) (done|succeeded|failed|errored|timeout)", output)}
    rate = re.search(r"finished in .*, ([\d.]+) req/s", output)
    data = re.search(r"\((\d+)\) data", output)
    if rate is None or data is None:
        raise LoadFailed(output)
    # A gRPC error is an HTTP success without a body, so the bodies must add up.
    without_body = counts["done"] - int(data[1]) // answer_size
    failed = counts["failed"] + counts["errored"] + counts["timeout"] + max(0, without_body)
    return float(rate[1]), counts["succeeded"], failed


def _framed(message: bytes) -> bytes:
    """As gRPC sends it: not compressed, its length, itself."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def _output(command: list[str], seconds: float) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + MAX_EXTRA_SECONDS)
    except subprocess.TimeoutExpired as exc:
        raise LoadFailed(f"{command[0]} did not end in time") from exc
    if done.returncode:
        raise LoadFailed(f"{command[0]}: {done.stderr or done.stdout}")
    return done.stdout
