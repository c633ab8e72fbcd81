"""The model that is to be promoted: inspected, loaded and evaluated once, and handed from step to step."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flows.data.rows import count, taken
from flows.recipes import Recipe
from flows.tasks import CannotEvaluate, Evaluation
from flows.training.baselines import DUMMY, LINEAR, fit_baselines, fit_dummy
from flows.training.dataset import Dataset
from flows.training.inspection import Inspection
from flows.training.made_rows import made_rows
from flows.training.predictor import SIGNATURE, Predictor, load_predictor
from flows.training.seen_rows import rows_seen
from flows.training.slices import Slice, slices
from serving.repository.answers import Tensors
from serving.repository.stamp import GoldenRows

log = logging.getLogger(__name__)

_GOLDEN_ROWS = 5
_GOLDEN_VALUES = 1 << 17  # of all golden rows together: a stamp is a file that is read often


@dataclass(frozen=True, slots=True)
class Asked:
    """A SavedModel, the rows that it was asked, and what it answered."""

    recipe: Recipe
    saved_model: Path
    inspection: Inspection
    predict: Predictor
    inputs: Tensors
    """the rows, as its signature takes them"""
    outputs: Tensors
    """what it answers to them"""

    def answers(self, rows: NDArray[np.int64]) -> Tensors:
        """The answers to these rows, in a request of just these if that makes a difference."""
        if self.recipe.rows_independent:
            return taken(self.outputs, rows)
        return self.predict(taken(self.inputs, rows))

    @property
    def golden(self) -> GoldenRows:
        """The rows and answers that are kept with it."""
        values = sum(array[:1].size for array in self.inputs.values())
        rows = np.arange(min(_GOLDEN_ROWS, count(self.inputs), max(1, _GOLDEN_VALUES // max(1, values))))
        return GoldenRows(taken(self.inputs, rows), self.answers(rows))


@dataclass(frozen=True, slots=True)
class Unevaluated(Asked):
    """One that nobody has held-out rows for: it was asked rows that are made from its signature."""

    reason: str
    """why it is promoted all the same"""

    @property
    def description(self) -> str:
        """What it is, in a sentence."""
        return f"{self.recipe.name}: not evaluated, {self.reason}"


@dataclass(frozen=True, slots=True)
class Candidate(Asked):
    """One that was asked held-out rows, whose targets say how good its answers are."""

    dataset: Dataset
    evaluation: Evaluation
    baselines: Mapping[str, Evaluation]
    """those of simple models that were trained on the same rows, by name"""

    @property
    def description(self) -> str:
        """What it is, in a sentence."""
        measured = ", ".join(f"{name.removeprefix('test_')} {value:.4f}" for name, value in self._headline())
        return f"{self.recipe.name}: {measured} on {len(self.dataset.test)} held-out rows."

    def _headline(self) -> list[tuple[str, float]]:
        return [(name, value) for name, value in self.evaluation.metrics.items() if name != "test_rows"][:3]

    @property
    def slices(self) -> tuple[Slice, ...]:
        """Its score by class and by each column that the recipe names."""
        return slices(self.evaluation, self.dataset, self.recipe.thresholds.slice_columns)


def load_candidate(recipe: Recipe, dataset: Dataset, saved_model: Path, inspection: Inspection) -> Candidate:
    """
    Load a SavedModel and run it over the held-out rows that it has not been trained on.

    Raises:
        CannotEvaluate: It does not answer them in the form that the task asks for, or there are none.
    """
    dataset = _without(dataset, rows_seen(saved_model, dataset.test))
    predict = load_predictor(saved_model)
    inputs = predict.bind(dataset.test.inputs)
    outputs = predict(inputs)
    evaluation = dataset.task.evaluate(dataset.test.targets, predict.judged(outputs))
    baselines = _evaluated_baselines(dataset)
    return Candidate(recipe, saved_model, inspection, predict, inputs, outputs, dataset, evaluation, baselines)


def ask_made_rows(
    recipe: Recipe, saved_model: Path, inspection: Inspection, predict: Predictor, reason: str
) -> Unevaluated:
    """
    Ask a SavedModel, which is loaded, rows that are made from its signature.

    Raises:
        CannotEvaluate: It does not answer them.
    """
    inputs = predict.bind(made_rows(inspection.signatures[SIGNATURE]))
    return Unevaluated(recipe, saved_model, inspection, predict, inputs, predict(inputs), reason)


def _evaluated_baselines(dataset: Dataset) -> dict[str, Evaluation]:
    """A dummy and a linear model; what cannot be fitted to these rows is not there."""
    task, targets = dataset.task, dataset.test.targets
    if not len(dataset.train):  # nothing to fit on; the held-out rows tell at least the best constant answer
        dummy = fit_dummy(task, dataset.test, dataset.test)
        return {} if dummy is None else {DUMMY: task.evaluate(targets, dummy)}
    found = fit_baselines(task, dataset.train, dataset.test)
    if found is None:
        return {}
    named = {DUMMY: found.dummy, LINEAR: found.linear}
    return {name: task.evaluate(targets, answers) for name, answers in named.items() if answers is not None}


def _without(dataset: Dataset, seen: NDArray[np.bool_] | None) -> Dataset:
    """The data without held-out rows that the model has seen, as one has that comes from another split."""
    if seen is None or not seen.any():
        return dataset
    if seen.all():
        raise CannotEvaluate("the model was trained on all held-out rows: hold out rows that it has not seen")
    log.warning("held-out rows left out, as the model was trained on them rows=%d", np.count_nonzero(seen))
    return replace(dataset, test=dataset.test.take(~seen))
