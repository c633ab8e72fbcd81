"""What does the picture in the documentation show?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

Curves = dict[str, dict[int, float]]
"""Per line its requests per second by concurrency."""


def draw(curves: Mapping[str, Mapping[int, float]], path: Path) -> None:
    """Requests per second by concurrency, as SVG; the same curves give the same file."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, points in curves.items():
        style = "--" if "empty" in name else "-"
        axes.plot(list(points), list(points.values()), marker="o", linestyle=style, label=name)
    ticks = sorted({concurrency for points in curves.values() for concurrency in points})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set(xlabel="requests in flight", ylabel="requests per second", ylim=(0, None), title="Iris, one row a request")
    axes.grid(alpha=0.3)
    axes.legend()
    with matplotlib.rc_context({"svg.hashsalt": "hotswap"}):
        figure.savefig(path, format="svg", metadata={"Date": None})
