"""What is kept of the data that a version was trained on?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flows.drift.answers import answer_columns
from flows.drift.columns import Kind, columns_of, text_kind
from flows.drift.profile import MAX_VALUES, PROFILE_FILE, ColumnProfile, Profile


def kinds_of(inputs: dict[str, NDArray[Any]], feature_names: tuple[str, ...] = ()) -> dict[str, Kind]:
    """The columns of inputs, and what each is."""
    kinds = {name: text_kind(array) for name, array in inputs.items() if array.dtype == object}
    return {each.name: each.kind for each in columns_of(inputs, feature_names, kinds)}


def test_columns_of_arrays() -> None:
    """A few values a row are a column each, by the names of the features; an image is its mean and its spread."""
    assert list(kinds_of({"input": np.ones((3, 2), np.float32)}, ("length", "width"))) == ["length", "width"]
    assert list(kinds_of({"a": np.ones((3, 2)), "b": np.ones((3, 1))})) == ["a[0]", "a[1]", "b"]
    assert list(kinds_of({"image": np.ones((3, 28, 28), np.uint8)})) == ["image mean", "image spread"]


def test_columns_of_texts() -> None:
    """Words that come again are categories, texts of which each is another are compared by their length."""
    words = np.array(["red", "green"] * 100, object)
    texts = np.array([f"text {number}" for number in range(200)], object)
    assert kinds_of({"colour": words, "said": texts}) == {"colour": Kind.CATEGORY, "said length": Kind.NUMBER}


def test_a_profile_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Values come back to the last bit of a float32, so that equal values fall into the same bins."""
    values = np.random.default_rng(1).normal(0, 1, (5000, 1)).astype(np.float32)
    inputs = {"x": values, "word": np.array([b"a", b"", b"\xff", "b", "a"] * 1000, object)}
    columns = tuple(ColumnProfile.of(each) for each in columns_of(inputs, (), {}))
    answers = tuple(
        ColumnProfile.of(each) for each in answer_columns(np.full((50, 1), 0.75, np.float32), ("no", "yes"))
    )
    counts, kinds = {"no": 2, "yes": 3}, {"said": None, "word": Kind.CATEGORY}
    profile = Profile(columns, answers, "output", "classification", ("no", "yes"), counts, (), kinds)
    profile.write(tmp_path)
    assert Profile.read(tmp_path) == profile
    assert len(profile.columns[0].values) == MAX_VALUES
    assert set(profile.columns[0].values) <= set(values.ravel().astype(float).tolist())
    assert dict(profile.columns[1].categories) == {"a": 2000, "\ufffd": 1000, "b": 1000}
    assert profile.columns[1].missing == 1000
    assert dict(answers[0].categories) == {"yes": 50}


def test_a_profile_that_cannot_be_understood_is_none(tmp_path: Path) -> None:
    """A file of a release to come, or a damaged one, is taken for none."""
    (tmp_path / PROFILE_FILE).parent.mkdir()
    for text in ("{", "[]", '{"columns": [], "answers": [], "later": 1}'):
        (tmp_path / PROFILE_FILE).write_text(text)
        assert Profile.read(tmp_path) is None
