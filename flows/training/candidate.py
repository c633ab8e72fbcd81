"""The model that is to be promoted: inspected, loaded and evaluated once, and handed from step to step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flows.recipes import Recipe
from flows.training.dataset import Dataset
from flows.training.evaluation import Evaluation, Slice, evaluate, slices
from flows.training.inspection import Inspection
from flows.training.predictor import Predictor, load_predictor
from serving.repository.stamp import GoldenRows

_GOLDEN_ROWS = 5


@dataclass(frozen=True, slots=True)
class Candidate:
    """A SavedModel, and what was found out about it."""

    recipe: Recipe
    dataset: Dataset
    saved_model: Path
    inspection: Inspection
    predict: Predictor
    evaluation: Evaluation

    def answers(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The answers to these held-out rows, in a request of just these if that makes a difference."""
        if self.recipe.rows_independent:
            return self.evaluation.probabilities[rows]
        return self.predict(self.dataset.test.examples[rows])

    @property
    def golden(self) -> GoldenRows:
        """The rows and answers that are kept with it."""
        rows = np.arange(min(_GOLDEN_ROWS, len(self.dataset.test)))
        return GoldenRows(self.dataset.test.examples[rows], self.answers(rows))

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
    evaluation = evaluate(predict, dataset.test, len(dataset.class_names))
    return Candidate(recipe, dataset, saved_model, inspection, predict, evaluation)
