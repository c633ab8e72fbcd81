"""A picture of which columns matter."""

from __future__ import annotations

from typing import Any

from flows.training.explanation import Explanation

_MAX_BARS = 25


def importance_figure(explanation: Explanation) -> Any:
    """A bar for each input, the most important on top."""
    from matplotlib.figure import Figure

    shown = explanation.importances[:_MAX_BARS][::-1]
    figure = Figure(figsize=(7, 1 + 0.3 * len(shown)), layout="constrained")
    axes = figure.subplots()
    axes.barh([each.input for each in shown], [each.mean for each in shown], xerr=[each.deviation for each in shown])
    axes.set_xlabel(f"{explanation.metric} lost when the column is shuffled")
    axes.axvline(0, color="black", linewidth=0.8)
    return figure
