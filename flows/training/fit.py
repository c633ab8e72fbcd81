"""Fits the model of a recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from flows.data.rows import Inputs, bare
from flows.recipes import Recipe
from flows.tasks import Classification, MultiLabel, Regression, Task
from flows.training.dataset import Dataset
from flows.user_code import RecipeFailed, of_recipe

Progress = Callable[[int, Mapping[str, float]], None]
"""Called after each epoch with its number, from 1, and its metrics."""


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


def fit(recipe: Recipe, dataset: Dataset, seed: int, epochs: int, progress: Progress) -> Fitted:
    """
    Train the recipe's model; the same seed gives the same model on the same machine.

    Raises:
        RecipeFailed: It cannot be built, or cannot be trained on these rows.
        OutOfMemory: There is not enough memory for it.
    """
    import keras

    class Report(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
            progress(epoch + 1, logs or {})

    keras.utils.set_random_seed(seed)
    with of_recipe(f"The model of {recipe.name!r} cannot be built"):
        model = recipe.build(dataset.train.examples)
    if not isinstance(model, keras.Model):
        given = type(model).__name__
        raise RecipeFailed(f"The build() of {recipe.name!r} returns {given}, and has to return a keras.Model")
    with of_recipe(f"The model of {recipe.name!r} cannot be trained"):
        if not model.compiled:
            compile_for(dataset.task, model, recipe)
        history = model.fit(
            fed(dataset.train.inputs),
            dataset.train.targets,
            batch_size=recipe.batch_size,
            epochs=epochs,
            verbose=0,
            callbacks=[Report()],
        )
    return Fitted(model, {name: [float(value) for value in values] for name, values in history.history.items()})


def compile_for(task: Task, model: Any, recipe: Recipe) -> None:
    """
    Compile a model with the loss of its task.

    Raises:
        RecipeFailed: The task has none.
    """
    import keras

    # Compiling by XLA takes longer than training models of this size.
    loss, metric = _loss(task, model)
    if loss is None:
        raise RecipeFailed(f"The task of {recipe.name!r} has no loss of its own: compile the model in build()")
    optimizer = keras.optimizers.Adam(recipe.learning_rate)
    model.compile(optimizer=optimizer, loss=loss, metrics=[metric], jit_compile=False)


def _loss(task: Task, model: Any) -> tuple[str | None, str]:
    if isinstance(task, Classification):
        one_sigmoid = model.output_shape[-1] == 1
        return "binary_crossentropy" if one_sigmoid else "sparse_categorical_crossentropy", "accuracy"
    if isinstance(task, MultiLabel):
        return "binary_crossentropy", "binary_accuracy"
    if isinstance(task, Regression):
        return "mean_squared_error", "mean_absolute_error"
    return None, ""


def fed(inputs: Inputs) -> Any:
    """What Keras takes for these inputs; strings as tensors, which it does not make of arrays by itself."""
    return bare({name: tf.constant(each) if each.dtype == object else each for name, each in inputs.items()})
