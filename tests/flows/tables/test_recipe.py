"""What is found out about a table, and the recipe that is made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flows.tables.columns import Column, Kind
from flows.tables.making import table_recipe
from flows.tables.names import input_names
from flows.tables.options import TableOptions, UnusableTable, recipe_of, titled
from flows.tables.recipe import TableRecipe
from flows.tasks import Classification, Regression
from flows.training.dataset import load_dataset
from tests.flows.tables.tables import customers, written


def recipe(directory: Path, frame: pd.DataFrame, target: str = "churned", **options: Any) -> TableRecipe:
    return table_recipe(TableOptions(written(frame, directory / "customers.csv"), target, **options))


def by_name(found: TableRecipe) -> dict[str, Column]:
    return {column.name: column for column in found.columns}


def test_each_column_is_taken_for_what_it_is(tmp_path: Path) -> None:
    """Kinds are inferred, and what cannot be learned from is left out."""
    found = by_name(recipe(tmp_path, customers()))
    assert {name: (column.kind, column.is_used) for name, column in found.items()} == {
        "customer_id": (Kind.IDENTIFIER, False),
        "age": (Kind.NUMBER, True),
        "plan": (Kind.CATEGORY, True),
        "joined": (Kind.DATE, True),
        "is active": (Kind.BOOLEAN, True),
        "note": (Kind.TEXT, True),
        "spend": (Kind.NUMBER, True),
        "country": (Kind.CONSTANT, False),
        "churned": (Kind.TARGET, False),
    }
    assert found["is active"].input == "is_active"


def test_what_became_of_each_column_is_told(tmp_path: Path) -> None:
    """The table says why a column is left out, what is missing, and what clients call it, in 80 columns."""
    text = recipe(tmp_path, customers()).described(80)
    assert "clients call it is_active" in " ".join(text.split())
    assert "14.5% missing" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80


def leaking() -> pd.DataFrame:
    frame = customers()
    left = frame["churned"] == "yes"
    frame["flag"] = np.where(left, 3.0, 7.0)
    frame["left_on"] = left.map({True: "2024-03-01"})
    return frame


def test_what_gives_the_target_away_is_left_out(tmp_path: Path) -> None:
    """A copy of the target under other values, and a column that only one class has, are named and left out."""
    found = by_name(recipe(tmp_path, leaking()))
    assert (found["flag"].kind, found["flag"].is_used) == (Kind.LEAK, False)
    assert (found["left_on"].kind, found["left_on"].is_used) == (Kind.LEAK, False)


def test_columns_are_kept_and_dropped_as_asked(tmp_path: Path) -> None:
    """--keep brings back what was left out, and --drop leaves out what would be taken."""
    found = by_name(recipe(tmp_path, leaking(), keep=("flag", "customer_id"), drop=("spend",)))
    assert (found["flag"].kind, found["flag"].is_used) == (Kind.NUMBER, True)
    assert (found["customer_id"].kind, found["customer_id"].is_used) == (Kind.CATEGORY, True)
    assert not found["spend"].is_used


def test_the_numbers_of_rows_are_an_identifier(tmp_path: Path) -> None:
    """Integers that count the rows, or are called an identifier, say nothing; others that differ in each row may."""
    frame = customers()
    frame["row"] = np.arange(len(frame))
    frame["account_id"] = np.random.default_rng(1).permutation(10 * len(frame))[: len(frame)]
    frame["income"] = frame["account_id"]
    found = by_name(recipe(tmp_path, frame))
    assert {name: found[name].kind for name in ("row", "account_id", "income")} == {
        "row": Kind.IDENTIFIER,
        "account_id": Kind.IDENTIFIER,
        "income": Kind.NUMBER,
    }


TARGETS: dict[str, tuple[list[Any], tuple[str, ...]]] = {
    "words": (["no", "yes"], ("no", "yes")),
    "booleans": ([True, False], ("False", "True")),
    "integers": ([3, 1, 2], ("1", "2", "3")),
    "two floats": ([0.5, 1.5], ("0.5", "1.5")),
}


@pytest.mark.parametrize("name", TARGETS)
def test_classes_may_be_of_any_type(tmp_path: Path, name: str) -> None:
    """Words, booleans and a few integers are classes, in their natural order."""
    values, classes = TARGETS[name]
    frame = customers().assign(y=np.resize(values, 400))
    assert recipe(tmp_path, frame, "y").task == Classification(classes)


def test_many_numbers_are_a_regression(tmp_path: Path) -> None:
    """Floats are values; integers of few values are so when --task says it."""
    assert recipe(tmp_path, customers(), "spend").task == Regression(("spend",))
    frame = customers().assign(visits=np.resize([0, 1, 2, 3], 400))
    assert recipe(tmp_path, frame, "visits", task="regression").task == Regression(("visits",))


def test_the_positive_class_is_the_second(tmp_path: Path) -> None:
    """--positive says which class is looked for."""
    assert recipe(tmp_path, customers(), positive="no").task == Classification(("yes", "no"), positive="no")


def test_rows_without_a_target_are_left_out_and_told(tmp_path: Path) -> None:
    """Nothing can be learned from them."""
    frame = customers()
    frame.loc[:49, "churned"] = None
    found = recipe(tmp_path, frame)
    dataset = load_dataset(found)
    assert len(dataset.train) + len(dataset.test) == 350
    assert found.notes == ("50 rows without a value of 'churned' that can be learned are left out",)


def test_the_newest_rows_are_held_out(tmp_path: Path) -> None:
    """--time sorts by what the column says, and the model is not asked with it."""
    dataset = load_dataset(recipe(tmp_path, customers(), time="joined"))
    assert dataset.train.extras["joined"].max() < dataset.test.extras["joined"].min()
    assert "joined" not in dataset.train.inputs
    assert 0.15 < len(dataset.test) / 400 < 0.25


def test_groups_stay_together(tmp_path: Path) -> None:
    """--group holds out all rows of a group or none."""
    frame = customers().assign(shop=np.resize([f"shop {each}" for each in range(40)], 400))
    dataset = load_dataset(recipe(tmp_path, frame, group="shop", test_share=0.3))
    assert set(dataset.train.extras["shop"]).isdisjoint(dataset.test.extras["shop"])


BUT_FEW = tuple(each for each in customers() if each not in ("churned", "customer_id", "country"))
BAD: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {"target": "churn"}, "has no column 'churn': did you mean 'churned'?"),
    ({}, {"drop": ("zip",)}, "has no column 'zip': it has customer_id, age"),
    ({"churned": "yes"}, {}, "The target 'churned' has one value only, yes"),
    ({"churned": None}, {}, "The target 'churned' has no values"),
    ({}, {"target": "customer_id"}, "has 400 different values in 400 rows, too many for classes"),
    ({}, {"task": "regression"}, "has words, such as"),
    ({}, {"task": "ranking"}, "--task is classification or regression, not 'ranking'"),
    ({}, {"positive": "maybe"}, "has no class 'maybe': it has no, yes"),
    ({}, {"target": "spend", "positive": "9"}, "--positive names a class"),
    ({}, {"time": "plan"}, "rows have no value of 'plan' to split by"),
    ({}, {"time": "country"}, "'country' has no times, but texts such as 'NZ'"),
    ({}, {"time": "joined", "group": "plan"}, "by --time or by --group, not by both"),
    ({}, {"drop": BUT_FEW}, "No column is left to learn 'churned' from: bring one back by --keep"),
]


@pytest.mark.parametrize(("change", "options", "sentence"), BAD)
def test_a_bad_table_is_told_in_one_sentence(
    tmp_path: Path, change: dict[str, Any], options: dict[str, Any], sentence: str
) -> None:
    """Each says what is wrong, and the next step."""
    with pytest.raises(UnusableTable) as found:
        recipe(tmp_path, customers().assign(**change), **options)
    assert sentence in str(found.value)
    assert "\n" not in str(found.value)


def test_names_that_tensorflow_cannot_use_are_as_close_as_can_be() -> None:
    """Letters of ASCII stay, accents go, and no two inputs have one name."""
    assert input_names(["age", "my col", "my_col", "größe", "1st", "class", "%", "self", "Ärzte-Dichte"]) == {
        "age": "age",
        "my col": "my_col_2",
        "my_col": "my_col",
        "größe": "grosse",
        "1st": "column_1st",
        "class": "class_",
        "%": "column_7",
        "self": "self_",
        "Ärzte-Dichte": "Arzte_Dichte",
    }


def test_the_model_is_called_like_the_file() -> None:
    """Or as --name says."""
    assert TableOptions(Path("some/churn data (2).csv"), "y").model == "churn_data_2"
    assert TableOptions(Path("churn.csv"), "y", name="leavers").model == "leavers"


@pytest.mark.parametrize(
    ("recipe_name", "parameters", "sentence"),
    [
        ("iris", {"target": "y"}, "--target is about a table: name it by --csv FILE"),
        ("iris", {"csv": "churn.csv"}, "Name the column of churn.csv that is to be predicted, by --target COLUMN"),
        ("digits", {"csv": "churn.csv", "target": "y"}, "Either a recipe is trained, digits, or a table, churn.csv"),
    ],
)
def test_options_that_do_not_go_together(recipe_name: str, parameters: dict[str, Any], sentence: str) -> None:
    """A table needs a target, a target needs a table, and a recipe needs neither."""
    with pytest.raises(UnusableTable, match=sentence):
        titled(recipe_name, parameters)


def test_without_a_table_a_recipe_is_found_by_its_name() -> None:
    """As ever."""
    assert recipe_of("iris", {"csv": None, "target": None}).name == "iris"
