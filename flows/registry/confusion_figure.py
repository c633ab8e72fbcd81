"""The confusion matrix of a run as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def confusion_figure(confusion: NDArray[np.int64], class_names: Sequence[str]) -> Any:
    """Counts [classes, classes], rows by true class and columns by predicted class."""
    # The figure class alone: pyplot would look for a screen and keep every figure.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.5 + 0.7 * len(class_names),) * 2, layout="constrained")
    axes = figure.subplots()
    axes.imshow(confusion, cmap="Blues")
    axes.set(xlabel="predicted", ylabel="true", title="held-out rows")
    axes.set_xticks(range(len(class_names)), class_names)
    axes.set_yticks(range(len(class_names)), class_names)
    for (row, column), count in np.ndenumerate(confusion):
        shade = "white" if count > confusion.max() / 2 else "black"
        axes.text(column, row, str(count), ha="center", va="center", color=shade)
    return figure
