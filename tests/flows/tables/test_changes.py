"""Next week's table, held against the one that the live version was trained on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from flows.tables.changes import check_table
from flows.tables.making import table_recipe
from flows.tables.options import TableOptions, UnusableTable
from flows.tables.schema import Schema
from tests.flows.tables.tables import customers, written


def schema(directory: Path, frame: pd.DataFrame, target: str = "churned") -> Schema:
    return table_recipe(TableOptions(written(frame, directory / "customers.csv"), target)).schema


def changes(directory: Path, change: Callable[[pd.DataFrame], pd.DataFrame], allow: bool = False) -> tuple[str, ...]:
    """What is told of this week's customers after a change."""
    before = schema(directory, customers())
    return check_table(before, schema(directory, change(customers(seed=1))), allow)


def test_a_schema_comes_back_as_it_was_kept(tmp_path: Path) -> None:
    """It travels with the version; what is no schema is none."""
    before = schema(tmp_path, customers())
    before.write(tmp_path)
    assert Schema.read(tmp_path) == before
    (tmp_path / "assets.extra" / "schema.json").write_text("{}")
    assert Schema.read(tmp_path) is None


def test_the_same_kind_of_table_passes(tmp_path: Path) -> None:
    """Other rows of the same kind are nothing to tell."""
    assert changes(tmp_path, lambda frame: frame) == ()


def test_a_column_that_is_gone_is_told(tmp_path: Path) -> None:
    """With what looks like it under another name; who allows clients to break may train without it."""
    with pytest.raises(UnusableTable, match=r"has no column 'age', .* bring it back; --allow-breaking trains"):
        changes(tmp_path, lambda frame: frame.drop(columns="age"))
    with pytest.raises(UnusableTable, match=r"has no column 'plan', .* if 'tariff' is the same, rename it"):
        changes(tmp_path, lambda frame: frame.rename(columns={"plan": "tariff"}))
    assert changes(tmp_path, lambda frame: frame.drop(columns="age"), allow=True) == ()


def test_a_column_of_another_type_is_told(tmp_path: Path) -> None:
    """With a value that shows it; nothing allows that, because the model would learn nonsense."""

    def in_words(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(age=np.where(frame["age"] > 40, "old", "young"))

    with pytest.raises(UnusableTable, match=r"'age' has texts now, such as '(old|young)', and .* with numbers"):
        changes(tmp_path, in_words, allow=True)


def test_what_clients_do_not_send_is_told(tmp_path: Path) -> None:
    """A new column, or one that is left out now, would break the clients of the live version; the way out is named."""
    with pytest.raises(UnusableTable, match=r"does not take 'height', .* add --drop 'height', or --allow-breaking"):
        changes(tmp_path, lambda frame: frame.assign(height=frame["age"] * 2.5))
    with pytest.raises(UnusableTable, match=r"takes 'plan', which .* add --keep 'plan', or --allow-breaking"):
        changes(tmp_path, lambda frame: frame.assign(plan="basic"))


def test_another_task_is_told(tmp_path: Path) -> None:
    """Classes do not become numbers unnoticed."""
    with pytest.raises(UnusableTable, match=r"makes a regression now, .* add --task classification"):
        changes(tmp_path, lambda frame: frame.assign(churned=np.linspace(0, 1, len(frame))))


def test_what_has_moved_is_told_in_the_gate(tmp_path: Path) -> None:
    """Missing values, new categories and another mix of classes stop nothing, and are told."""

    def moved(frame: pd.DataFrame) -> pd.DataFrame:
        frame.loc[::2, "age"] = np.nan
        frame.loc[5:80:2, "plan"] = "premium"
        frame.loc[:250, "churned"] = "no"
        return frame

    notes = changes(tmp_path, moved)
    assert any(note.startswith("'age' is missing in 50% of the rows, before in 0%") for note in notes)
    assert any("'plan' has new categories in 10% of the rows, such as 'premium'" in note for note in notes)
    assert any(note.startswith("class 'yes' is ") for note in notes)
