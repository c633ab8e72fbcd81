"""Fits the model of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from flows.data.rows import bare, taken
from flows.recipes import Recipe
from flows.tasks import Classification, MultiLabel, Regression, Task
from flows.training.callbacks import Kept, Progress, hotswaps_own
from flows.training.course import Training, training_of
from flows.training.dataset import Dataset
from flows.user_code import RecipeFailed, of_recipe


@dataclass(frozen=True, slots=True)
class Fitted:
    """A trained Keras model, and per metric its value after each epoch."""

    model: Any
    history: dict[str, list[float]]


def params(recipe: Recipe, seed: int, epochs: int) -> dict[str, int | float]:
    """What a training depends on, beside data and code."""
    return {
        "seed": seed,
        "epochs": epochs,
        "batch_size": recipe.batch_size,
        "learning_rate": recipe.learning_rate,
    }


def fit(
    recipe: Recipe, dataset: Dataset, seed: int, epochs: int, progress: Progress, kept: Kept | None = None
) -> Fitted:
    """
    Train the recipe's model; the same seed gives the same model on the same machine.

    Args:
        recipe: What is trained.
        dataset: Its data.
        seed: Of the weights and of the order of the rows.
        epochs: How often every row is seen.
        progress: Is told of every epoch.
        kept: Where it is kept how far the training has come, and where that is if it goes on.

    Raises:
        RecipeFailed: It cannot be built, or cannot be trained on these rows.
        OutOfMemory: There is not enough memory for it.
    """
    keras.utils.set_random_seed(seed)
    model = _built(recipe, dataset)
    with of_recipe(f"The callbacks of {recipe.name!r} cannot be made"):
        own = list(recipe.callbacks()) if recipe.callbacks else []
    training = training_of(recipe, dataset, seed, epochs, [*hotswaps_own(progress, epochs, kept), *own])
    with of_recipe(f"The model of {recipe.name!r} cannot be trained"):
        if not model.compiled and not recipe.fit:
            compile_for(dataset, model, recipe)
        return Fitted(model, _numbers(_history(recipe, model, training)))


def _history(recipe: Recipe, model: Any, training: Training) -> Any:
    """What the training loop of the recipe, of the model or of Keras returns."""
    if recipe.fit:
        return recipe.fit(model, training)
    return model.fit(**(training.arguments if _is_kerass(model) else training.arrays))


def _is_kerass(model: Any) -> bool:
    """Whether it is trained by Keras's own loop."""
    return type(model).fit is keras.Model.fit


def _built(recipe: Recipe, dataset: Dataset) -> Any:
    with of_recipe(f"The model of {recipe.name!r} cannot be built"):
        model = recipe.build(dataset.train.examples)
        if not isinstance(model, keras.Model):
            given = type(model).__name__
            raise RecipeFailed(f"The build() of {recipe.name!r} returns {given}, and has to return a keras.Model")
        if not model.built and _is_kerass(model):
            _answer(model, dataset)  # makes its weights
    return model


def _answer(model: Any, dataset: Dataset) -> Any:
    """What the model answers to one row."""
    row = taken(dataset.train.inputs, slice(0, 1))
    return model(bare({name: tf.constant(each) for name, each in row.items()}))


def _numbers(history: Any) -> dict[str, list[float]]:
    """What a training loop returns: Keras's history, a dict of lists, or nothing."""
    found = getattr(history, "history", history)
    if not isinstance(found, Mapping):
        return {}
    return {str(name): [float(value) for value in values] for name, values in found.items()}


def compile_for(dataset: Dataset, model: Any, recipe: Recipe) -> None:
    """
    Compile a model with the loss of its task.

    Raises:
        RecipeFailed: The task has none.
    """
    # Compiling by XLA takes longer than training models of this size.
    loss, metric = _loss(dataset.task, model, dataset)
    if loss is None:
        raise RecipeFailed(f"The task of {recipe.name!r} has no loss of its own: compile the model in build()")
    optimizer = keras.optimizers.Adam(recipe.learning_rate)
    model.compile(optimizer=optimizer, loss=loss, metrics=[metric], jit_compile=False)
    # Variables that are first made while the training step is traced let TensorFlow trace it twice.
    optimizer.build(model.trainable_variables)
    model.compute_metrics(None, dataset.train.targets[:1], _answer(model, dataset))


def _loss(task: Task, model: Any, dataset: Dataset) -> tuple[str | None, str]:
    if isinstance(task, Classification):
        one_sigmoid = len(task.class_names) == 2 and _answer(model, dataset).shape[-1] == 1
        return "binary_crossentropy" if one_sigmoid else "sparse_categorical_crossentropy", "accuracy"
    if isinstance(task, MultiLabel):
        return "binary_crossentropy", "binary_accuracy"
    if isinstance(task, Regression):
        return "mean_squared_error", "mean_absolute_error"
    return None, ""
