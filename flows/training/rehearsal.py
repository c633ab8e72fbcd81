"""Tries a recipe without recording or publishing anything, as a test of a recipe does."""

from __future__ import annotations

from flows.machine.workspaces import workspace
from flows.recipes import Recipe
from flows.tasks import Evaluation
from flows.training.dataset import load_dataset
from flows.training.export import export
from flows.training.fit import fit
from flows.training.predictor import load_predictor


def rehearse(recipe: Recipe, epochs: int | None = None, seed: int = 42) -> Evaluation:
    """
    Train, export and load the model of a recipe, and evaluate it on the held-out rows.

    Args:
        recipe: What is tried.
        epochs: Of the training; the recipe's own where it is not given.
        seed: Of the training.

    Raises:
        RecipeFailed: Its code fails.
        UnusableData: Its data cannot be trained on.
        CannotEvaluate: Its model does not answer as its task asks.
    """
    dataset = load_dataset(recipe)
    model = fit(recipe, dataset, seed, epochs or recipe.epochs, lambda epoch, metrics: None).model
    with workspace() as directory:
        export(model, dataset, recipe.name, directory / "saved_model")
        predict = load_predictor(directory / "saved_model")
        answers = predict.judged(predict(dataset.test.inputs))
    return dataset.task.evaluate(dataset.test.targets, answers)
