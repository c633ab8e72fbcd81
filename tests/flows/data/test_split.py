"""Which rows are held out: never those that were trained on before, whatever rows are added."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from flows.data.ids import row_ids
from flows.data.rows import Rows
from flows.data.split import ByContent, ByGroup, ByTime, HeldOut, InvalidSplit, Split
from flows.recipes import Recipe
from flows.tasks import Regression
from flows.training.dataset import UnusableData, load_dataset

VALUES = st.lists(
    st.tuples(st.floats(allow_nan=True, width=32), st.text(max_size=5), st.integers(-(2**40), 2**40)),
    min_size=1,
    max_size=30,
)
SHARES = st.floats(0.01, 0.99)
QUICK = settings(deadline=None, max_examples=50)


def rows(values: list[tuple[float, str, int]]) -> Rows:
    """One row of three inputs for each, and two columns that the model is not asked with."""
    numbers, texts, integers = zip(*values, strict=True)
    inputs: dict[str, NDArray[Any]] = {
        "number": np.array(numbers, np.float32),
        "text": np.array([*texts, ""], object)[:-1],
        "integer": np.array(integers, np.int64),
    }
    extras = {"day": np.array(integers, np.int64) % 7, "shop": np.array([str(each % 5) for each in integers], object)}
    return Rows(inputs, np.arange(len(values)), row_ids(inputs), extras)


@pytest.mark.parametrize("make", [ByContent, lambda share: ByGroup("shop", share)], ids=["content", "group"])
@QUICK
@given(old=VALUES, new=VALUES, share=SHARES)
def test_a_row_never_changes_sides_when_rows_are_added(make: Any, old: Any, new: Any, share: float) -> None:
    """Before or after it, equal or different ones."""
    split: Split = make(share)
    before = split.held_out(rows(old))
    np.testing.assert_array_equal(split.held_out(rows([*old, *new]))[: len(old)], before)
    np.testing.assert_array_equal(split.held_out(rows([*new, *old]))[len(new) :], before)


@QUICK
@given(values=VALUES, order=st.randoms(use_true_random=False))
def test_the_order_of_rows_and_inputs_does_not_matter(values: Any, order: Any) -> None:
    """A row has its id wherever it stands, and by whatever order its inputs are named in."""
    places = list(range(len(values)))
    order.shuffle(places)
    given_rows, moved = rows(values), rows([values[place] for place in places])
    np.testing.assert_array_equal(moved.ids, given_rows.ids[places])
    np.testing.assert_array_equal(row_ids(dict(reversed([*given_rows.inputs.items()]))), given_rows.ids)


@QUICK
@given(values=VALUES, share=SHARES)
def test_equal_rows_are_on_one_side(values: Any, share: float) -> None:
    """Also where they have NaN, or zeros of either sign."""
    twice = rows([*values, *((number + 0.0, text, integer) for number, text, integer in values)])
    held_out = ByContent(share).held_out(twice)
    np.testing.assert_array_equal(held_out[: len(values)], held_out[len(values) :])


def test_the_share_is_held_out_and_a_smaller_one_is_part_of_it() -> None:
    """So that a share which grows takes rows from training, and one which shrinks gives them back."""
    ids = row_ids({"input": np.arange(20_000, dtype=np.float32)})
    many = Rows({"input": np.arange(20_000)}, np.zeros(20_000), ids)
    small, large = (ByContent(share).held_out(many) for share in (0.1, 0.3))
    assert small.mean() == pytest.approx(0.1, abs=0.01)
    assert large.mean() == pytest.approx(0.3, abs=0.01)
    assert not (small & ~large).any()


@QUICK
@given(values=VALUES, share=SHARES)
def test_a_group_is_on_one_side(values: Any, share: float) -> None:
    """All rows with one value of the column."""
    given_rows = rows(values)
    held_out = ByGroup("shop", share).held_out(given_rows)
    for shop in set(given_rows.extras["shop"]):
        assert len(set(held_out[given_rows.extras["shop"] == shop])) == 1


@QUICK
@given(values=VALUES, share=SHARES)
def test_by_time_nothing_newer_is_trained_on(values: Any, share: float) -> None:
    """Every held-out row is newer than all others, and at least the share is held out."""
    given_rows = rows(values)
    held_out, days = ByTime("day", share).held_out(given_rows), given_rows.extras["day"]
    assert held_out.any()
    assert held_out.sum() >= np.floor(share * len(values))
    if not held_out.all():
        assert days[held_out].min() > days[~held_out].max()


def test_a_split_that_cannot_be_is_refused() -> None:
    """A column that is not there, and a share that leaves no rows on one side."""
    with pytest.raises(InvalidSplit, match="no column 'when' to split by; there are day, integer, number, shop, text"):
        ByTime("when").held_out(rows([(1.0, "a", 1)]))
    for make in (ByContent, lambda share: ByTime("day", share), lambda share: ByGroup("shop", share)):
        for share in (0.0, 1.0, -1.0, float("nan")):
            with pytest.raises(InvalidSplit, match="between 0 and 1"):
                make(share)


OWN = Recipe(
    name="own",
    load=lambda: (np.arange(20.0)[:, None], np.arange(20.0)),
    build=lambda examples: None,
    task=Regression(("y",)),
)


def test_rows_of_ones_own_are_held_out() -> None:
    """All others are trained on, and what cannot be held out is told like other data."""
    dataset = load_dataset(replace(OWN, split=HeldOut(lambda: (np.arange(50.0, 60.0)[:, None], np.arange(10.0)))))
    assert (len(dataset.train), len(dataset.test)) == (20, 10)
    with pytest.raises(UnusableData, match="no rows"):
        load_dataset(replace(OWN, split=HeldOut(lambda: (np.empty((0, 1)), np.empty(0)))))


def with_sums(data: NDArray[np.float64]) -> tuple[Any, Any]:
    return data, data.sum(axis=1)


def test_next_weeks_data_never_holds_out_what_was_trained_on() -> None:
    """A model that was trained on the rows of today has seen none of those that are held out of more rows."""
    numbers = np.random.default_rng(5).normal(size=(3000, 4))
    seen: set[int] = set()
    for week in range(1000, 3001, 500):
        data = numbers[:week]
        dataset = load_dataset(replace(OWN, load=partial(with_sums, data)))
        assert not seen & set(dataset.test.ids.tolist())
        seen |= set(dataset.train.ids.tolist())
