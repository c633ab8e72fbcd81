"""Rows in memory as Keras is given them: batch by batch, each once an epoch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flows.training.batches import Batches

NUMBERS = np.arange(10, dtype=np.float64)
WORDS = np.array([f"word {number}" for number in range(10)], object)
ROWS = {"number": NUMBERS, "word": WORDS}, np.arange(10)


def epochs(batches: Batches, count: int) -> list[list[NDArray[Any]]]:
    """The targets of each epoch, batch by batch."""
    read = batches.dataset.take(count * batches.in_epoch).as_numpy_iterator()
    return [[next(read)[1] for _ in range(batches.in_epoch)] for _ in range(count)]


def test_each_row_comes_once_an_epoch_in_another_order_each() -> None:
    """The last batch has the rest of them, and the same seed gives the same orders."""
    batches = Batches(ROWS, 4, seed=1)
    first, second, third = epochs(batches, 3)
    assert [len(each) for each in first] == [4, 4, 2]
    orders = [np.concatenate(each).tolist() for each in (first, second, third)]
    assert all(sorted(each) == list(range(10)) for each in orders)
    assert len({tuple(each) for each in orders}) == 3
    again = [np.concatenate(each).tolist() for each in epochs(Batches(ROWS, 4, seed=1), 3)]
    assert again == orders


def test_inputs_stay_beside_their_targets() -> None:
    """Words are tensors of text, and numbers as exact as Keras computes."""
    for inputs, targets in Batches(ROWS, 3, seed=2).dataset.take(8).as_numpy_iterator():
        assert inputs["number"].dtype == np.float32
        np.testing.assert_array_equal(inputs["number"], targets)
        assert [word.decode() for word in inputs["word"]] == WORDS[targets].tolist()


def test_without_a_seed_the_order_is_that_of_the_rows() -> None:
    """In every epoch, as validation wants it."""
    for epoch in epochs(Batches(ROWS, 4), 2):
        np.testing.assert_array_equal(np.concatenate(epoch), np.arange(10))
