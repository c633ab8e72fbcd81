"""
Trains the network of a table: first its linear part, then what the deep part adds to it, if anything.

The linear part is fitted by scikit-learn, its penalty chosen by cross-validation. The deep part begins by adding
nothing, and is trained on a part of the rows until the others no longer gain; it is kept only where these gain more
than chance would give. So the whole is never clearly worse than the linear model, whatever the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from flows.tables.encoder import Encoded, Encoder
from flows.tables.linear import fit_linear
from flows.tables.network import Network, build_network, quantiles
from flows.tables.settings import DROPOUT, WIDTH
from flows.training.batches import Batches

_MANY_ROWS = 20_000
_WEIGHT_DECAY = 0.01
_MIN_VALIDATION_SHARE, _MAX_VALIDATION_SHARE = 0.15, 0.3
_WANTED_VALIDATION_ROWS, _MAX_VALIDATION_ROWS = 300, 20_000
_PREDICTED_ROWS = 8192
_LEAST_GAIN = 1e-4
_STANDARD_ERRORS = 2.0
"""of its mean that a gain must have to be more than chance"""


@dataclass(frozen=True, slots=True)
class Targets:
    """What is to be learned."""

    values: NDArray[Any]
    """int64 [rows] classes, or float64 [rows, 1] of mean 0 and variance 1"""
    classes: int
    """0 for a regression"""

    @property
    def outputs(self) -> int:
        return self.classes or self.values.shape[1]


@dataclass(frozen=True, slots=True)
class Schedule:
    """How the deep part is trained."""

    epochs: int
    """at most"""
    batch_rows: int
    learning_rate: float
    width: int = WIDTH
    """of its hidden layers"""
    dropout: float = DROPOUT


@dataclass(frozen=True, slots=True)
class Trained:
    """A network, and how its training went."""

    network: Network
    history: Any
    """Keras's"""
    has_deep_part: bool
    """whether the deep part gained anything"""


def train(
    encoder: Encoder, encoded: Encoded, targets: Targets, how: Schedule, seed: int, callbacks: Sequence[Any]
) -> Trained:
    """The network for these rows; the same seed gives the same."""
    fit_on, judge_on = _parted(targets, len(encoded), seed)
    edges, members = quantiles(encoded), _members(len(encoded))
    network = build_network(encoder, edges, targets.outputs, members, how.width, how.dropout)
    straight = fit_linear(encoder, encoded.take(fit_on), targets.values[fit_on], targets.classes, seed)
    network.set_linear(straight)
    optimizer = keras.optimizers.AdamW(how.learning_rate, weight_decay=_WEIGHT_DECAY)
    network.model.compile(optimizer, _classes_loss if targets.classes else _values_loss, jit_compile=False)
    # Variables that are first made while the training step is traced let TensorFlow trace it twice.
    optimizer.build(network.model.trainable_variables)
    begun = network.model.get_weights()
    rows, truth = _tensors(encoded.take(judge_on)), targets.values[judge_on]
    before = _row_losses(network, rows, truth, bool(targets.classes))
    stop = keras.callbacks.EarlyStopping(
        min_delta=_LEAST_GAIN, patience=_patience(len(encoded)), restore_best_weights=True
    )
    taken = Batches((encoded.take(fit_on).inputs, targets.values[fit_on]), how.batch_rows, seed)
    history = _fit(network.model, taken, Batches((rows, truth), _PREDICTED_ROWS), how.epochs, [stop, *callbacks])
    gained = before - _row_losses(network, rows, truth, bool(targets.classes))
    has_deep_part = bool(gained.mean() > _STANDARD_ERRORS * gained.std() / np.sqrt(len(gained)))
    if not has_deep_part:
        network.model.set_weights(begun)
    network.set_linear(fit_linear(encoder, encoded, targets.values, targets.classes, seed, straight))
    return Trained(network, history, has_deep_part)


def _fit(model: Any, taken: Batches, judged: Batches, epochs: int, callbacks: Sequence[Any]) -> Any:
    return model.fit(
        taken.dataset,
        steps_per_epoch=taken.in_epoch,
        epochs=epochs,
        validation_data=judged.dataset,
        validation_steps=judged.in_epoch,
        shuffle=False,  # which is done already
        callbacks=callbacks,
        verbose=0,
    )


def _parted(targets: Targets, rows: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows to train on and those to stop by, each class in both where that can be."""
    share = min(max(_MIN_VALIDATION_SHARE, _WANTED_VALIDATION_ROWS / rows), _MAX_VALIDATION_SHARE)
    share = min(share, _MAX_VALIDATION_ROWS / rows)
    if not targets.classes:
        fit_on, judge_on = train_test_split(np.arange(rows), test_size=share, random_state=seed)
        return fit_on, judge_on
    is_lone = (np.bincount(targets.values) == 1)[targets.values]
    others = np.flatnonzero(~is_lone)
    many = min(len(others), len(np.unique(targets.values[others]))) <= len(others) * min(share, 1 - share)
    stratify = targets.values[others] if many else None
    fit_on, judge_on = train_test_split(others, test_size=share, random_state=seed, stratify=stratify)
    return np.concatenate([fit_on, np.flatnonzero(is_lone)]), judge_on


def _tensors(encoded: Encoded) -> dict[str, Any]:
    return {name: tf.constant(values) for name, values in encoded.inputs.items()}


def _members(rows: int) -> int:
    """Many rows say by themselves what few say on the average of several members."""
    return 8 if rows < _MANY_ROWS else 2


def _patience(rows: int) -> int:
    """Epochs without a gain after which training ends; an epoch of many rows is many steps."""
    return 8 if rows < _MANY_ROWS else 2


def _classes_loss(truth: Any, outputs: Any) -> Any:
    """The mean of the members' cross-entropies [batch]: each learns by itself, so that they differ."""
    classes = tf.repeat(tf.reshape(tf.cast(truth, tf.int32), (-1, 1)), tf.shape(outputs)[1], axis=1)
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(classes, outputs), axis=1)


def _values_loss(truth: Any, outputs: Any) -> Any:
    """The mean of the members' squared errors [batch]; Keras leaves out the last dimension of 1 of what it compares."""
    wanted = tf.reshape(tf.cast(truth, tf.float32), (-1, 1))
    return tf.reduce_mean((tf.reshape(outputs, (tf.shape(wanted)[0], -1)) - wanted) ** 2, axis=1)


def _row_losses(network: Network, rows: Any, truth: NDArray[Any], are_classes: bool) -> NDArray[np.float64]:
    """The loss of each row by the members' mean, which is what clients get."""
    # Called as it is: predict() would take longer to build a graph than this takes.
    outputs = network.model(rows, training=False)
    if are_classes:
        probabilities = tf.reduce_mean(tf.nn.softmax(outputs), axis=1).numpy()
        return np.asarray(-np.log(np.maximum(probabilities[np.arange(len(truth)), truth], 1e-9)), np.float64)
    return np.asarray(((outputs.numpy().mean(axis=1) - truth) ** 2).mean(axis=1), np.float64)
