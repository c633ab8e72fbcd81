"""``hotswap predict`` by names and for files: a table's columns go to its inputs, and what is missing may be."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flows.cli import run
from flows.prediction.named_values import example
from flows.settings import Settings
from flows.tables.schema import ColumnSchema, Schema
from serving.repository.stamp import GoldenRows, Stamp
from serving.repository.store import Repository

CHURN, NUMBERS = "churn", "numbers"
ROWS = 5000  # more than are asked at once


def save(models: Path) -> None:
    """A table's model, which answers age / 100, 0 where it is missing, and 1 for plan pro; and one of two numbers."""
    import tensorflow as tf

    def spec(shape: list[int | None], dtype: Any, name: str) -> Any:
        return tf.TensorSpec(shape, dtype, name=name)

    def chance(age: Any, plan: Any) -> Any:
        known = tf.where(tf.math.is_nan(age), 0.0, age / 100)
        return tf.where(plan == "pro", 1.0, known)

    columns = (spec([None], tf.float32, "age"), spec([None], tf.string, "plan"))
    module = tf.Module()
    answer = tf.function(lambda age, plan: {"output": tf.stack([1 - chance(age, plan), chance(age, plan)], 1)}, columns)
    classes = tf.function(
        lambda age, plan: {
            "class_name": tf.where(chance(age, plan) > 0.5, "yes", "no"),
            "probability": tf.maximum(chance(age, plan), 1 - chance(age, plan)),
        },
        columns,
    )
    signatures = {"serving_default": answer, "classify_class": classes}
    tf.saved_model.save(module, str(models / CHURN / "1"), signatures=signatures)
    total = tf.function(lambda x: {"sum": tf.reduce_sum(x, 1)}, [spec([None, 2], tf.float32, "x")])
    tf.saved_model.save(tf.Module(), str(models / NUMBERS / "1"), signatures={"serving_default": total})


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A running server of both, published with golden rows, and the table's with its schema."""
    from serving.repository.model_config import ModelEntry, render
    from serving.server import Server
    from serving.settings import ServerSettings

    root = tmp_path_factory.mktemp("named")
    models = root / "models"
    save(models)
    columns = (
        ColumnSchema("Age (years)", "age", "number", "float32", 0.1),
        ColumnSchema("plan", "plan", "category", "string", 0.1),
    )
    Schema(columns, "churned", "classification", {"no": 0.5, "yes": 0.5}, 10).write(models / CHURN / "1")
    first = {"age": np.array([42], np.float32), "plan": np.array(["basic plus"], object)}
    Stamp(golden=GoldenRows(first, {"output": np.array([[0.58, 0.42]], np.float32)})).write(models / CHURN / "1")
    unknown = GoldenRows({"x": np.array([[np.nan, 1]], np.float32)}, {"sum": np.array([np.nan], np.float32)})
    Stamp(features=("b", "a"), golden=unknown).write(models / NUMBERS / "1")
    config = root / "models.config"
    config.write_text(render([ModelEntry(name, str(models / name)) for name in (CHURN, NUMBERS)]))
    with Server(ServerSettings(model_config_file=config)) as server:
        rest_port, grpc_port = server.rest_port, server.grpc_port
        yield Settings(home=root / "home", models_repo=models, rest_port=rest_port, grpc_port=grpc_port)


@pytest.fixture
def predict(settings: Settings, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    """``hotswap predict …``: exit code, standard output and standard error."""
    for field in ("home", "models_repo", "rest_port", "grpc_port"):
        monkeypatch.setenv(f"HOTSWAP_{field.upper()}", str(getattr(settings, field)))

    def printed(*arguments: str) -> tuple[int, str, str]:
        code = run(["predict", *arguments])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return printed


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """A CSV file with a column that the model does not take, and missing values."""
    frame = pd.DataFrame(
        {"who": [f"P, {n}" for n in range(ROWS)], "plan": "basic", "Age (years)": np.arange(ROWS) % 90}
    )
    frame.loc[1, "plan"] = "pro"
    frame["Age (years)"] = frame["Age (years)"].astype(str)
    frame.loc[2, "Age (years)"] = "NA"
    frame.to_csv(tmp_path / "people.csv", index=False)
    return tmp_path / "people.csv"


@pytest.mark.parametrize("protocol", [(), ("--grpc",)], ids=["rest", "grpc"])
def test_a_row_is_written_by_the_names_of_its_columns(predict: Any, protocol: tuple[str, ...]) -> None:
    """The columns' own names count, and what is not given is missing, which is told."""
    code, text, _ = predict(CHURN, "Age (years)=70", "plan=basic", "--json", *protocol)
    assert (code, json.loads(text)["classes"][0]["class"]) == (0, "yes")
    code, text, _ = predict(CHURN, "plan=basic", *protocol)
    assert (code, "  missing: Age (years)\n  class: no 1" in text) == (0, True)
    assert predict(NUMBERS, "a=1", "b=2.5", *protocol)[1].endswith("sum: 3.5\n")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((CHURN, "age=3"), "has no column 'age'; it has Age (years), plan"),
        ((CHURN, "Age (years)=old"), "Row 1, Age (years): 'old' is no number"),
        ((CHURN, "plan=a", "plan=b"), "A name is given twice"),
        ((CHURN, "1,2"), "write 'Age (years)=42' 'plan=basic plus', or give them as JSON"),
        ((CHURN,), "write rows, or name a file by --csv FILE"),
        ((CHURN, "--csv", "nowhere.csv"), "nowhere.csv cannot be read"),
    ],
)
def test_what_does_not_fit_is_told(predict: Any, arguments: tuple[str, ...], told: str) -> None:
    """One sentence names the column, and what can be written instead."""
    code, _, errors = predict(*arguments)
    assert (code in (1, 2), told in errors.replace("\n", " ")) == (True, True), errors


def test_a_model_that_was_judged_with_missing_values_takes_them(predict: Any) -> None:
    """NaN is sent, and a name that is left out is NaN."""
    assert predict(NUMBERS, "nan,1")[:2] == (0, "numbers version 1\n  sum: nan\n")
    assert predict(NUMBERS, "a=1")[:2] == (0, "numbers version 1\n  missing: b\n  sum: nan\n")


def test_json_rows_may_leave_out_what_may_be_missing(predict: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are those of the columns or of the inputs; NaN and what is left out are missing."""
    rows = '[{"Age (years)": NaN, "plan": "basic"}, {"plan": "pro"}, {"age": 30, "plan": ""}]'
    monkeypatch.setattr("sys.stdin", io.StringIO(rows))
    _, text, _ = predict(CHURN, "-", "--json")
    expected = np.array([[1, 0], [0, 1], [0.7, 0.3]])
    np.testing.assert_allclose(json.loads(text)["outputs"]["output"], expected, atol=1e-6)


@pytest.mark.parametrize("name", ["scored.csv", "scored.parquet"])
def test_a_file_is_scored_beside_its_rows(predict: Any, people: Path, tmp_path: Path, name: str) -> None:
    """Every row is as it was, in its place, with its class, probability and outputs."""
    code, text, _ = predict(CHURN, "--csv", str(people), "--out", str(tmp_path / name))
    assert (code, text) == (0, f"5,000 rows scored by churn version 1: {tmp_path / name}\n")
    read = pd.read_parquet if name.endswith("parquet") else pd.read_csv
    scored, given = read(tmp_path / name), pd.read_csv(people)
    assert list(scored) == ["who", "plan", "Age (years)", "class", "probability", "output_0", "output_1"]
    assert scored["who"].equals(given["who"])
    expected = (np.arange(ROWS) % 90) / 100
    expected[1:3] = [1, 0]
    np.testing.assert_allclose(scored["output_1"], expected, atol=1e-6)
    assert (scored["class"] == np.where(expected > 0.5, "yes", "no")).all()
    assert not list(tmp_path.glob("*.part"))


def test_a_parquet_file_goes_to_standard_output(predict: Any, tmp_path: Path) -> None:
    """Without --out the rows are printed as CSV; columns go to the values of the only input by their names."""
    pd.DataFrame({"a": [1, 2], "b": [0.5, 4.0]}).to_parquet(tmp_path / "rows.parquet")
    code, text, _ = predict(NUMBERS, "--csv", str(tmp_path / "rows.parquet"))
    assert code == 0
    assert pd.read_csv(io.StringIO(text)).to_dict("list") == {"a": [1, 2], "b": [0.5, 4.0], "sum": [1.5, 6.0]}


def test_a_value_that_does_not_fit_leaves_no_file(predict: Any, people: Path, tmp_path: Path) -> None:
    """The message names row and column, counted from where the rows were asked together."""
    lines = people.read_text().splitlines()
    lines[4500] = '"somebody",basic,old'
    people.write_text("\n".join(lines))
    code, _, errors = predict(CHURN, "--csv", str(people), "--out", str(tmp_path / "scored.csv"))
    assert (code, "'old' is no number" in errors) == (1, True)
    assert "Row 4500, Age (years)" in errors
    assert [each.name for each in tmp_path.iterdir()] == ["people.csv"]


def test_the_example_of_a_table_names_its_columns(settings: Settings) -> None:
    """It can be pasted into a shell."""
    assert example(Repository(settings.models_repo), CHURN, 1) == "'Age (years)=42' 'plan=basic plus'"
