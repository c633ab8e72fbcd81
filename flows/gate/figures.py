"""
Pictures of an evaluation: confusion matrix, ROC and calibration curves, predicted against actual values, slices; and of
which columns matter.

They are made by the figure class alone: pyplot would look for a screen and keep every figure.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flows.tasks import Classification, Evaluation, MultiLabel, Regression
from flows.training.explanation import Explanation
from flows.training.slices import Slice

_MAX_LABELS = 30
_MAX_CURVES = 10
_MAX_POINTS = 2000
_MAX_SLICES = 25
_MAX_BARS = 25
_PANEL_INCHES = 4.2

Panel = Callable[[Any], None]
"""Draws into axes."""


def evaluation_figure(evaluation: Evaluation, slices: Sequence[Slice] = ()) -> Any:
    """What is to be seen of an evaluation, side by side; None where there is nothing."""
    from matplotlib.figure import Figure

    panels = [*_panels(evaluation), *([lambda axes: _draw_slices(axes, evaluation, slices)] if slices else [])]
    if not panels:
        return None
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(_PANEL_INCHES * columns, _PANEL_INCHES * rows))
    places = figure.subplots(rows, columns, squeeze=False).flat
    for draw, axes in zip_longest(panels, places):
        if draw is None:
            axes.remove()
        else:
            draw(axes)
    figure.tight_layout()  # once, where a layout of the figure would draw it twice
    return figure


def confusion_figure(evaluation: Evaluation) -> Any:
    """The confusion matrix of a classification alone."""
    from matplotlib.figure import Figure

    assert isinstance(evaluation.task, Classification)
    size = 1.5 + 0.7 * min(len(evaluation.task.class_names), _MAX_LABELS)
    figure = Figure(figsize=(size, size))
    _draw_confusion(figure.subplots(), evaluation)
    figure.tight_layout()
    return figure


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


def as_png(figure: Any) -> bytes:
    """A small picture for a page."""
    written = io.BytesIO()
    figure.savefig(written, format="png", dpi=70)
    return written.getvalue()


def _panels(evaluation: Evaluation) -> list[Panel]:
    task = evaluation.task
    if task.fault(evaluation.answers):
        return []
    if isinstance(task, Classification):
        curves = _columns(task, evaluation)
        return [
            lambda axes: _draw_confusion(axes, evaluation),
            lambda axes: _draw_roc(axes, curves),
            lambda axes: _draw_calibration(axes, curves),
        ]
    if isinstance(task, MultiLabel):
        named = list(zip(task.label_names, evaluation.targets.T, evaluation.answers.T, strict=True))
        return [lambda axes: _draw_roc(axes, named), lambda axes: _draw_calibration(axes, named)]
    if isinstance(task, Regression):
        values = evaluation.answers.reshape(evaluation.targets.shape)
        named = list(zip(task.target_names, evaluation.targets.T, values.T, strict=True))
        return [lambda axes, each=each: _draw_predicted(axes, *each) for each in named[:_MAX_CURVES]]  # type: ignore[misc]
    return []


_Curve = tuple[str, NDArray[Any], NDArray[Any]]
"""A name, the truth bool [rows], and its probability [rows]."""


def _columns(task: Classification, evaluation: Evaluation) -> list[_Curve]:
    """Of two classes the one that is looked for, of more each against all others."""
    probabilities = task.probabilities(evaluation.answers)
    positive = task.positive_class
    numbers = range(len(task.class_names)) if positive is None else [positive]
    return [(task.class_names[each], evaluation.targets == each, probabilities[:, each]) for each in numbers]


def _draw_confusion(axes: Any, evaluation: Evaluation) -> None:
    """Counts, rows by true class and columns by predicted class."""
    task = evaluation.task
    assert isinstance(task, Classification)
    confusion = task.confusion(evaluation.targets, evaluation.answers)
    axes.imshow(confusion, cmap="Blues")
    axes.set(xlabel="predicted", ylabel="true", title="held-out rows")
    if len(confusion) > _MAX_LABELS:
        return
    axes.set_xticks(range(len(confusion)), task.class_names, rotation=90 if len(confusion) > 3 else 0)
    axes.set_yticks(range(len(confusion)), task.class_names)
    for (row, column), count in np.ndenumerate(confusion):
        shade = "white" if count > confusion.max() / 2 else "black"
        axes.text(column, row, str(count), ha="center", va="center", color=shade)


def _draw_roc(axes: Any, curves: Sequence[_Curve]) -> None:
    from sklearn.metrics import auc, roc_curve

    for name, truth, probability in curves[:_MAX_CURVES]:
        if truth.any() and not truth.all():
            false, true, _ = roc_curve(truth, probability)
            axes.plot(*_thinned(false, true), label=f"{name}, area {auc(false, true):.3f}")
    _diagonal(axes, "ROC curve", "false positive rate", "true positive rate")


def _draw_calibration(axes: Any, curves: Sequence[_Curve]) -> None:
    from sklearn.calibration import calibration_curve

    for name, truth, probability in curves[:_MAX_CURVES]:
        share, mean = calibration_curve(truth, np.clip(probability, 0, 1), n_bins=10)
        axes.plot(mean, share, marker="o", markersize=3, label=name)
    _diagonal(axes, "calibration", "probability", "share that is true")


def _diagonal(axes: Any, title: str, x: str, y: str) -> None:
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle="--")
    axes.set(xlabel=x, ylabel=y, title=title, xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize="small")


def _draw_predicted(axes: Any, name: str, actual: NDArray[Any], predicted: NDArray[Any]) -> None:
    some = np.random.default_rng(0).permutation(len(actual))[:_MAX_POINTS]
    axes.scatter(actual[some], predicted[some], s=8, alpha=0.5)
    ends = [min(actual.min(), predicted.min()), max(actual.max(), predicted.max())]
    axes.plot(ends, ends, color="grey", linewidth=0.8, linestyle="--")
    axes.set(xlabel=f"actual {name}", ylabel=f"predicted {name}", title="held-out rows")


def _draw_slices(axes: Any, evaluation: Evaluation, slices: Sequence[Slice]) -> None:
    """Mean score of each, the lowest where there are many."""
    shown = sorted(slices, key=lambda each: each.score)[:_MAX_SLICES][::-1]
    axes.barh([f"{each.by} {each.name} ({each.rows})"[-40:] for each in shown], [each.score for each in shown])
    axes.axvline(evaluation.score, color="grey", linewidth=0.8, linestyle="--")
    axes.tick_params(labelsize="small")
    axes.set(xlabel=evaluation.task.score_name, title="slices, and all rows")


def _thinned(*curve: NDArray[Any]) -> list[NDArray[Any]]:
    """Some points of a curve of very many, its ends among them."""
    kept = np.unique(np.linspace(0, len(curve[0]) - 1, min(_MAX_POINTS, len(curve[0]))).astype(int))
    return [each[kept] for each in curve]
