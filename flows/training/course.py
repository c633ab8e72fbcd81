"""What a training loop is given: rows, weights, validation rows and callbacks, as the recipe asks for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from flows.data.rows import Inputs, Rows, bare
from flows.recipes import Recipe
from flows.training.batches import Batches
from flows.training.dataset import Dataset, UnusableData, load_rows

if TYPE_CHECKING:
    from flows.training.streams import Stream

_IDS = 2.0**64
_SCATTER = np.uint64(0x9E3779B97F4A7C15)  # 2**64 by the golden ratio: another order of the ids than the split's


@dataclass(frozen=True, slots=True, eq=False)
class Training:
    """What a training loop of a recipe's own, ``fit=``, is given beside the model."""

    train: Rows
    validation: Rows | None
    """rows to stop by, or to choose by; never those held out"""
    weights: NDArray[np.float32] | None
    """float32 [rows]: how much each training row counts, by its class and by the recipe's column"""
    epochs: int
    batch_size: int
    seed: int
    stream: Stream | None
    """the training rows where they are too many for memory; `train` then has some of them"""
    callbacks: Sequence[Any]
    """hotswap's, which record, show and keep the state, then the recipe's; hand them to ``model.fit``"""

    @property
    def arguments(self) -> dict[str, Any]:
        """What ``model.fit(**training.arguments)`` trains with as hotswap itself would."""
        if self.stream is not None:
            found = {"x": self.stream.batches(self.batch_size, self.seed)}
        else:
            weights = () if self.weights is None else (self.weights,)
            rows = Batches((self.train.examples, self.train.targets, *weights), self.batch_size, self.seed)
            found = {"x": rows.dataset, "steps_per_epoch": rows.in_epoch}
        if self.validation is not None:
            judged = Batches((self.validation.examples, self.validation.targets), self.batch_size)
            found |= {"validation_data": judged.dataset, "validation_steps": judged.in_epoch}
        return {**found, "shuffle": False, **self._common}  # they are shuffled already

    @property
    def arrays(self) -> dict[str, Any]:
        """The same for a model whose ``fit`` is its own, which takes ``x``, ``y`` and ``batch_size``."""
        if self.stream is not None:
            return self.arguments
        found = {"x": fed(self.train.inputs), "y": self.train.targets, "batch_size": self.batch_size}
        if self.weights is not None:
            found["sample_weight"] = self.weights
        if self.validation is not None:
            found["validation_data"] = (fed(self.validation.inputs), self.validation.targets)
        return {**found, **self._common}

    @property
    def _common(self) -> dict[str, Any]:
        return {"epochs": self.epochs, "callbacks": list(self.callbacks), "verbose": 0}


def training_of(recipe: Recipe, dataset: Dataset, seed: int, epochs: int, callbacks: Sequence[Any]) -> Training:
    """
    The training that the recipe asks for.

    Raises:
        UnusableData: Its weights or its validation rows cannot be used.
    """
    asked = recipe.class_weight or recipe.sample_weight or (recipe.validation and not callable(recipe.validation))
    if dataset.stream is not None and asked:
        raise UnusableData(f"The stream of {recipe.name!r} takes neither weights nor a share to validate by")
    train, validation = _validated(recipe, dataset)
    weights = weights_of(recipe, dataset, train)
    return Training(train, validation, weights, epochs, recipe.batch_size, seed, dataset.stream, callbacks)


def fed(inputs: Inputs) -> Any:
    """What Keras takes for these inputs; strings as tensors, which it does not make of arrays by itself."""
    return bare({name: tf.constant(each) if each.dtype == object else each for name, each in inputs.items()})


def _validated(recipe: Recipe, dataset: Dataset) -> tuple[Rows, Rows | None]:
    """The rows to train on, and those to validate by, which are other ones."""
    if callable(recipe.validation):
        rows = load_rows(recipe, recipe.validation)
        if held_out := int(np.isin(rows.ids, dataset.test.ids).sum()):
            raise UnusableData(f"{held_out} validation rows of {recipe.name!r} are held out: leave them out")
        return dataset.train.take(~np.isin(dataset.train.ids, rows.ids)), rows
    if not recipe.validation:
        return dataset.train, None
    chosen = dataset.train.ids * _SCATTER < recipe.validation * _IDS
    if not chosen.any() or chosen.all():
        raise UnusableData(f"The data of {recipe.name!r} is too small for validation={recipe.validation}")
    return dataset.train.take(~chosen), dataset.train.take(chosen)


def weights_of(recipe: Recipe, dataset: Dataset, rows: Rows) -> NDArray[np.float32] | None:
    """
    float32 [rows]; None where all rows count the same.

    Raises:
        UnusableData: There is no such class or column, or a weight is none.
    """
    if not recipe.class_weight and recipe.sample_weight is None:
        return None
    weights = np.ones(len(rows), np.float64)
    if recipe.class_weight:
        weights *= _by_class(recipe.class_weight, dataset, recipe.name)[rows.targets]
    if recipe.sample_weight is not None:
        if recipe.sample_weight not in rows.columns:
            raise UnusableData(f"The data of {recipe.name!r} has no column {recipe.sample_weight!r} to weigh rows by")
        weights *= rows.columns[recipe.sample_weight].reshape(len(rows)).astype(np.float64)
    if not np.isfinite(weights).all() or (weights < 0).any() or not weights.any():
        raise UnusableData(f"The weights of the rows of {recipe.name!r} must be numbers of 0 or more")
    return weights.astype(np.float32)


def _by_class(weights: Mapping[str, float], dataset: Dataset, name: str) -> NDArray[np.float64]:
    names = dataset.class_names
    if unknown := sorted(weights.keys() - set(names)):
        raise UnusableData(f"The model {name!r} has no class {unknown} to weigh; it has {list(names)}")
    return np.array([weights.get(each, 1.0) for each in names])
