"""Pictures of what has changed: each column beside the training data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from flows.drift.columns import Column, Kind
from flows.drift.profile import ColumnProfile, category_counts

_MAX_PANELS = 12
_MAX_BARS = 12
_BINS = 30
_PER_LINE = 3
_PANEL_INCHES = 3.4
_BEFORE, _NOW = "training", "logged"


def drift_figure(names: Sequence[str], profiles: Mapping[str, ColumnProfile], columns: Mapping[str, Column]) -> Any:
    """The first of the named columns, their values in training and in the log; None where there are none."""
    from matplotlib.figure import Figure

    shown = [name for name in names if name in profiles and name in columns and len(columns[name].values)][:_MAX_PANELS]
    if not shown:
        return None
    lines = -(-len(shown) // _PER_LINE)
    wide = min(_PER_LINE, len(shown))
    figure = Figure(figsize=(_PANEL_INCHES * wide, _PANEL_INCHES * lines))
    for name, axes in zip_longest(shown, figure.subplots(lines, wide, squeeze=False).flat):
        if name is None:
            axes.remove()
            continue
        draw = _draw_numbers if profiles[name].kind is Kind.NUMBER else _draw_categories
        draw(axes, profiles[name], columns[name])
        axes.set_title(name, fontsize="small")
    figure.axes[0].legend(fontsize="x-small")
    figure.tight_layout()
    return figure


def _draw_numbers(axes: Any, profile: ColumnProfile, column: Column) -> None:
    before = np.array(profile.values)
    low, high = np.quantile(np.concatenate([before, column.values]), [0.005, 0.995]) if len(before) else (0.0, 1.0)
    edges = np.linspace(low, high if high > low else low + 1, _BINS + 1)
    for values, label in ((before, _BEFORE), (column.values, _NOW)):
        if len(values):
            axes.hist(np.clip(values, *edges[[0, -1]]), edges, weights=np.full(len(values), 1 / len(values)),
                      alpha=0.5, histtype="stepfilled", label=label)  # fmt: skip


def _draw_categories(axes: Any, profile: ColumnProfile, column: Column) -> None:
    now, unseen = category_counts(column.values.tolist(), profile.categories)
    names = list(profile.categories)[:_MAX_BARS]
    before = np.array([profile.categories[name] for name in names] + [0], float)
    after = np.array([now[name] for name in names] + [unseen], float)
    places = np.arange(len(before))
    axes.bar(places - 0.2, before / max(1, profile.rows - profile.missing), 0.4, label=_BEFORE)
    axes.bar(places + 0.2, after / max(1, len(column.values)), 0.4, label=_NOW)
    axes.set_xticks(places, [name[:12] for name in names] + ["unseen"], rotation=60, fontsize="x-small")
