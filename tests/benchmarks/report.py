"""Keeps what was measured beside its targets, and shows it as tables."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

COLUMNS = ("measured", "value", "target", "", "TensorFlow Serving 2.20", "besides")

_SETTING = (
    "The load comes from wrk and h2load (Debian's packages `wrk` and `nghttp2-client`). The empty handler answers on "
    "the same transport without looking at the request. `mlflow models serve` answers the same model, and a TensorFlow "
    "Serving takes part where `TENSORFLOW_MODEL_SERVER=/path` names one."
)
_BESIDE_THE_REAL_ONE = (
    "The column of TensorFlow Serving 2.20 gives what was measured beside the real server in one run on two cores."
)


@dataclass(frozen=True, slots=True)
class Measurement:
    """One number, what it may be at most or must be at least, and what was seen besides."""

    what: str
    value: float
    unit: str
    at_most: float | None = None
    at_least: float | None = None
    besides: str = ""
    beside_tensorflow_serving: str = ""
    """how this compares with the real server, where that was measured"""

    @property
    def verdict(self) -> str:
        """Empty where there is no target."""
        if self.at_most is None and self.at_least is None:
            return ""
        too_much = self.at_most is not None and self.value > self.at_most
        too_little = self.at_least is not None and self.value < self.at_least
        return "missed" if too_much or too_little else "reached"

    @property
    def cells(self) -> tuple[str, str, str, str, str, str]:
        """The row of a table, in the order of `COLUMNS`."""
        targets = [f"at most {number(self.at_most)}"] if self.at_most is not None else []
        targets += [f"at least {number(self.at_least)}"] if self.at_least is not None else []
        target = f"{', '.join(targets)} {self.unit}" if targets else ""
        value = f"{number(self.value)} {self.unit}"
        return self.what, value, target, self.verdict, self.beside_tensorflow_serving, self.besides


def number(value: float) -> str:
    """Three digits, or all of those before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def spread(values: Sequence[float]) -> str:
    """Least and most of the rounds whose median is given."""
    return f"from {number(min(values))} to {number(max(values))} in {len(values)} rounds"


def show(part: str, measurements: Sequence[Measurement]) -> None:
    """Print a table."""
    table = Table(*COLUMNS, box=None, title=part)
    for each in measurements:
        table.add_row(*each.cells, style="red" if each.verdict == "missed" else None)
    console = Console(width=200)
    console.print(table)
    if any(each.beside_tensorflow_serving for each in measurements):
        console.print(_BESIDE_THE_REAL_ONE)


def write_markdown(parts: Mapping[str, Sequence[Measurement]], path: Path) -> None:
    """Keep the tables where the documentation shows them."""
    path.write_text("\n".join(_markdown(parts)) + "\n", "utf-8")


def _markdown(parts: Mapping[str, Sequence[Measurement]]) -> Iterator[str]:
    yield "# Measured"
    yield ""
    yield f"Made by `make bench` on {os.cpu_count()} cores of a {_processor()}, load generators and servers together."
    yield _SETTING
    yield _BESIDE_THE_REAL_ONE
    yield ""
    yield "![Requests per second by concurrency](benchmark.svg)"
    for part, measurements in parts.items():
        yield from ("", f"## {part}", "", _row(COLUMNS), _row(["---"] * len(COLUMNS)))
        for each in measurements:
            yield _row(each.cells)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _processor() -> str:
    """The name that Linux has for it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else "machine"
