"""One candidate: trained in a process of its own on what is left of the training rows, and compared on the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.recipes.tuning import with_settings
from flows.search.validation import score, score_name, without_validation
from flows.tables.options import recipe_of
from flows.training.callbacks import Progress
from flows.training.dataset import UnusableData, load_dataset
from flows.training.export import export
from flows.training.fit import fit
from flows.training.predictor import load_predictor
from flows.training.summary import model_facts, model_summary


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be trained. It names the recipe, as no process can hand a function to another one."""

    recipe: str
    table: Mapping[str, Any]
    """the options of a table"""
    digest: str
    """of the data"""
    seed: int
    epochs: int
    settings: Mapping[str, Any]
    saved_model: Path
    """where to"""
    threads: int
    """of TensorFlow"""


@dataclass(frozen=True, slots=True)
class Measured:
    """How good a candidate is on the validation rows."""

    score: float
    """larger is better"""
    score_name: str
    metrics: Mapping[str, float]
    rows: int
    facts: Mapping[str, str]
    """what the model is made of"""
    summary: str


def train_candidate(order: Order, progress: Progress) -> Measured:
    """
    Train, export and measure; `progress` is told of every epoch.

    Raises:
        RecipeFailed: The recipe's code fails.
        UnusableData: The data has changed meanwhile, or is too small.
    """
    recipe = with_settings(recipe_of(order.recipe, order.table), order.settings)
    dataset = load_dataset(recipe)
    if dataset.digest != order.digest:
        raise UnusableData(f"The data of {recipe.name!r} has changed since the training began: train again")
    kept, validation = without_validation(recipe, dataset)
    model = fit(recipe, kept, order.seed, order.epochs, progress).model
    export(model, dataset, recipe.name, order.saved_model)
    predict = load_predictor(order.saved_model)
    evaluation = dataset.task.evaluate(validation.targets, predict.judged(predict(validation.inputs)))
    return Measured(
        score(evaluation),
        score_name(evaluation),
        dict(evaluation.metrics),
        len(validation),
        model_facts(model),
        model_summary(model),
    )
