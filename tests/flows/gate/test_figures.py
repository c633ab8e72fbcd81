"""Pictures of an evaluation."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flows.gate.figures import as_png, confusion_figure, evaluation_figure
from flows.tasks import Classification, MultiLabel, OwnTask, Regression, Task
from flows.training.slices import Slice

RANDOM = np.random.default_rng(0)
ROWS = 60
TWO = Classification(("no", "yes"))
THREE = Classification(("a", "b", "c"))
MANY = Classification(tuple(f"c{number}" for number in range(300)))
LABELS = MultiLabel(("wet", "cold"))
SLICES = (Slice("class", "no", 30, 0.9), Slice("plan", "basic", 30, 0.5))


def titles(figure: Any) -> list[str]:
    return [axes.get_title() for axes in figure.axes]


@pytest.mark.parametrize(
    ("task", "targets", "answers", "expected"),
    [
        (TWO, RANDOM.integers(0, 2, ROWS), RANDOM.random(ROWS), ["held-out rows", "ROC curve", "calibration"]),
        (TWO, np.zeros(ROWS, int), RANDOM.random(ROWS), ["held-out rows", "ROC curve", "calibration"]),
        (
            THREE,
            RANDOM.integers(0, 3, ROWS),
            RANDOM.dirichlet(np.ones(3), ROWS),
            ["held-out rows", "ROC curve", "calibration"],
        ),
        (MANY, np.arange(300), RANDOM.dirichlet(np.ones(300), 300), ["held-out rows", "ROC curve", "calibration"]),
        (LABELS, RANDOM.random((ROWS, 2)) > 0.5, RANDOM.random((ROWS, 2)), ["ROC curve", "calibration"]),
        (Regression(), RANDOM.normal(size=(ROWS, 1)), RANDOM.normal(size=ROWS), ["held-out rows"]),
        (
            Regression(("x", "y")),
            RANDOM.normal(size=(ROWS, 2)),
            RANDOM.normal(size=(ROWS, 2)),
            ["held-out rows", "held-out rows"],
        ),
    ],
    ids=["two", "one class only", "three", "many", "labels", "one value", "two values"],
)
def test_every_task_has_its_pictures(task: Task, targets: Any, answers: Any, expected: list[str]) -> None:
    """Classes, labels and values each have theirs, with the slices beside them, as one PNG that fits a page."""
    evaluation = task.evaluate(targets, answers)
    figure = evaluation_figure(evaluation, SLICES)
    assert titles(figure) == [*expected, "slices, and all rows"]
    png = as_png(figure)
    assert len(png) < 200_000
    assert max(Image.open(io.BytesIO(png)).size) <= 1000


def test_a_confusion_matrix_shows_the_counts() -> None:
    """Those of the matrix, each in its place; with hundreds of classes the colours alone."""
    evaluation = THREE.evaluate(np.array([0, 0, 1, 2]), np.eye(3)[[0, 1, 1, 2]])
    texts = [each.get_text() for each in confusion_figure(evaluation).axes[0].texts]
    assert texts == ["1", "1", "0", "0", "1", "0", "0", "0", "1"]
    many = MANY.evaluate(np.arange(300), np.eye(300))
    assert len(confusion_figure(many).axes[0].texts) == 0
    assert max(confusion_figure(many).get_size_inches()) < 30


def test_where_there_is_nothing_to_see_there_is_no_picture() -> None:
    """A task of one's own, and answers that are NaN."""
    own = OwnTask(lambda targets, answers: -np.abs(targets - answers))
    assert evaluation_figure(own.evaluate(np.ones(3), np.ones(3))) is None
    broken = TWO.evaluate(np.array([0, 1]), np.array([np.nan, 0.5]))
    assert evaluation_figure(broken) is None


def test_many_points_are_thinned() -> None:
    """A picture of 200,000 rows has as many points as can be seen."""
    actual = RANDOM.normal(size=(200_000, 1))
    scattered = evaluation_figure(Regression().evaluate(actual, actual)).axes[0].collections[0]
    assert len(scattered.get_offsets()) == 2000
    curve = evaluation_figure(TWO.evaluate(RANDOM.integers(0, 2, 200_000), RANDOM.random(200_000))).axes[1].lines[0]
    assert len(curve.get_xdata()) <= 2000
    assert (curve.get_xdata()[0], curve.get_xdata()[-1]) == (0, 1)
