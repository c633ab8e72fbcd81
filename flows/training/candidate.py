"""The model that is to be promoted: inspected, loaded and evaluated once, and handed from step to step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flows.data.rows import taken
from flows.recipes import Recipe
from flows.training.dataset import Dataset
from flows.training.evaluation import Evaluation, Slice, evaluate, slices
from flows.training.inspection import Inspection
from flows.training.predictor import Predictor, load_predictor
from serving.repository.answers import Tensors
from serving.repository.stamp import GoldenRows

_GOLDEN_ROWS = 5
_GOLDEN_VALUES = 1 << 17  # of all golden rows together: a stamp is a file that is read often


@dataclass(frozen=True, slots=True)
class Candidate:
    """A SavedModel, and what was found out about it."""

    recipe: Recipe
    dataset: Dataset
    saved_model: Path
    inspection: Inspection
    predict: Predictor
    inputs: Tensors
    """the held-out rows, as its signature takes them"""
    outputs: Tensors
    """what it answers to them"""
    evaluation: Evaluation

    def answers(self, rows: NDArray[np.int64]) -> Tensors:
        """The answers to these held-out rows, in a request of just these if that makes a difference."""
        if self.recipe.rows_independent:
            return taken(self.outputs, rows)
        return self.predict(taken(self.inputs, rows))

    @property
    def golden(self) -> GoldenRows:
        """The rows and answers that are kept with it."""
        values = sum(array[:1].size for array in self.inputs.values())
        rows = np.arange(min(_GOLDEN_ROWS, len(self.dataset.test), max(1, _GOLDEN_VALUES // max(1, values))))
        return GoldenRows(taken(self.inputs, rows), self.answers(rows))

    @property
    def description(self) -> str:
        """What it is, in a sentence."""
        measured = ", ".join(f"{name.removeprefix('test_')} {value:.4f}" for name, value in self._headline())
        return f"{self.recipe.name}: {measured} on {len(self.dataset.test)} held-out rows."

    def _headline(self) -> list[tuple[str, float]]:
        return [(name, value) for name, value in self.evaluation.metrics.items() if name != "test_rows"][:3]

    @property
    def slices(self) -> tuple[Slice, ...]:
        """Its accuracy by class and by each column that the recipe names."""
        return slices(self.evaluation, self.dataset, self.recipe.thresholds.slice_columns)


def load_candidate(recipe: Recipe, dataset: Dataset, saved_model: Path, inspection: Inspection) -> Candidate:
    """
    Load a SavedModel and run it over the held-out rows.

    Raises:
        CannotEvaluate: It does not give class probabilities for them.
    """
    predict = load_predictor(saved_model)
    inputs = predict.bind(dataset.test.inputs)
    outputs = predict(inputs)
    evaluation = evaluate(predict.judged(outputs), dataset.test, len(dataset.class_names))
    return Candidate(recipe, dataset, saved_model, inspection, predict, inputs, outputs, evaluation)
