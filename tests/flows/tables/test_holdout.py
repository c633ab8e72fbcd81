"""Held-out rows of a file, as a SavedModel without a recipe takes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flows.tables.evidence import HoldOut, judged_by
from flows.tables.holdout import held_out_rows
from flows.tables.options import UnusableTable
from flows.tables.schema import ColumnSchema, Schema
from flows.tasks import Classification, Regression
from flows.training.inspection import Inspection, Signature

NUMBERS = Signature("predict", {"x": "float32 [-1, 2]"}, {"y": "float32 [-1, 1]"})


def inspected(signature: Signature, *class_names: str) -> Inspection:
    return Inspection({"serving_default": signature}, class_names, frozenset(), 0)


def written(directory: Path, text: str) -> HoldOut:
    (directory / "rows.csv").write_text(text)
    return HoldOut(directory / "rows.csv", "t")


def test_all_columns_are_one_input_in_their_order(tmp_path: Path) -> None:
    """The only input gets the columns beside the target; what is missing is NaN, and all rows are held out."""
    data = held_out_rows(written(tmp_path, "b,t,a\n1,0.5,2\n,1.5,4\n3,2.5,6\n"), inspected(NUMBERS))
    assert isinstance(data.task, Regression)
    np.testing.assert_array_equal(data.test.inputs["x"], np.array([[1, 2], [np.nan, 4], [3, 6]], np.float32))
    np.testing.assert_array_equal(data.test.targets, [[0.5], [1.5], [2.5]])
    assert (len(data.train), data.feature_names) == (0, ("b", "a"))


def test_columns_go_to_inputs_of_their_names_in_their_types(tmp_path: Path) -> None:
    """A number is a text where the model takes texts, true is 1, a missing text is empty, others are not asked."""
    takes = {"code": "string [-1]", "old": "int64 [-1, 1]"}
    signature = Signature("predict", takes, {"y": "float32 [-1, 1]"})
    data = held_out_rows(
        written(tmp_path, "code,old,other,t\n7,true,z,no\n,false,z,yes\n8,true,z,no\n9,true,z,yes\n"),
        inspected(signature),
    )
    assert data.test.inputs["code"].tolist() == ["7", "", "8", "9"]
    assert data.test.inputs["old"].tolist() == [1, 0, 1, 1]
    assert data.task == Classification(("no", "yes"))
    assert data.test.targets.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("class_names", "values", "targets"),
    [(("red", "green"), ("green", "red", "green"), [1, 0, 1]), ((), ("1", "0", "2"), [1, 0, 2])],
    ids=["of the model", "their numbers"],
)
def test_classes_are_those_of_the_model(
    class_names: tuple[str, ...], values: tuple[str, ...], targets: list[int], tmp_path: Path
) -> None:
    """Class names that travel with the model give their order; without them numbers count from 0."""
    signature = Signature("predict", NUMBERS.inputs, {"p": f"float32 [-1, {len(class_names) or 3}]"})
    rows = "".join(f"1,2,{value}\n" for value in values)
    data = held_out_rows(written(tmp_path, f"a,b,t\n{rows}"), inspected(signature, *class_names))
    assert data.test.targets.tolist() == targets


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a,b,u\n1,2,3\n4,5,6\n", "has no column 't'; it has 'a', 'b', 'u'"),
        ("a,t\n1,2\n4,5\n2,2\n", r"takes 'x', float32 \[-1, 2\], and the file has 1 columns beside the target"),
        ("a,b,t\n1,old,3\n2,new,4\n3,new,5\n", "Column 'b' has 'old', and the model takes numbers in it"),
        ("a,b,t\n1,2,red\n2,1,green\n3,1,blue\n1,2,red\n2,1,green\n3,1,blue\n", "answers with 1 values, and 't' has"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(text: str, told: str, tmp_path: Path) -> None:
    """The sentence names the column, and what the model takes."""
    with pytest.raises(UnusableTable, match=told):
        held_out_rows(written(tmp_path, text), inspected(NUMBERS))


def test_columns_have_the_names_of_the_table_that_the_model_learned(tmp_path: Path) -> None:
    """A column whose name TensorFlow cannot use goes to the input that the kept schema names."""
    columns = (ColumnSchema("net worth", "net_worth", "number", "float32", 0.0),)
    schema = Schema(columns, "t", "regression", {}, 3)
    signature = Signature("predict", {"net_worth": "float32 [-1]"}, NUMBERS.outputs)
    data = held_out_rows(written(tmp_path, "t,net worth\n1.5,7\n2.5,8\n3.5,9\n"), inspected(signature), schema)
    assert data.test.inputs["net_worth"].tolist() == [7, 8, 9]


def test_what_a_model_is_judged_by_is_written_for_a_shell() -> None:
    """A hint can be pasted: the recipe, or the model with its rows."""
    assert judged_by("churn.py", {"csv": None, "seed": 3}) == "churn.py"
    assert judged_by("churn", {"csv": Path("new rows.csv"), "target": "y"}) == "churn --csv 'new rows.csv' --target y"
