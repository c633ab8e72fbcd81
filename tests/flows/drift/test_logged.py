"""Which rows of a request log are compared, and how good were the answers to them?"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import tensorflow as tf
from google.protobuf.json_format import ParseDict
from tensorflow_serving.apis import prediction_log_pb2

from flows.drift.columns import Kind
from flows.drift.logged import Logged, NoLog, logged_rows
from flows.drift.profile import ColumnProfile, Profile
from flows.drift.truth import LiveScore, Truth, live_score
from flows.tables.options import UnusableTable

NAMES = ["x", "id"]


def prediction_log(version: int, x: float, id: str, model: str = "m", seconds: int = 1_800_000_000) -> bytes:
    """One row as TensorFlow Serving logs it; the answer is 1 - x and x."""
    record = prediction_log_pb2.PredictionLog()
    record.log_metadata.model_spec.name, record.log_metadata.timestamp_secs = model, seconds
    record.log_metadata.model_spec.version.value = version
    request, response = record.predict_log.request, record.predict_log.response
    request.inputs["x"].CopyFrom(tf.make_tensor_proto([x], tf.float32))
    request.inputs["id"].CopyFrom(tf.make_tensor_proto([id.encode()]))
    response.outputs["output"].CopyFrom(tf.make_tensor_proto([[1 - x, x]], tf.float32))
    content: bytes = record.SerializeToString()
    return content


def write(path: Path, *records: bytes) -> Path:
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    return path


def rows(directory: Path, **asked: Any) -> Logged:
    return logged_rows(directory, "m", NAMES, **{"version": 2, **asked})


def test_rows_of_a_log_of_tensorflow_serving(tmp_path: Path) -> None:
    """Whoever wrote it and whatever its files are called, the rows of a model are read, the oldest first."""
    old = write(tmp_path / "log-0001", prediction_log(1, 0.25, "a"), prediction_log(2, 0.5, "b", model="other"))
    write(tmp_path / "log-0002", prediction_log(2, 0.75, "c"))
    os.utime(old, (1, 1))
    found = rows(tmp_path)
    assert found.inputs["x"].tolist() == [0.25, 0.75]
    assert found.inputs["id"].tolist() == [b"a", b"c"]
    assert found.answered.tolist() == [False, True]
    assert found.outputs["output"].tolist() == [[0.25, 0.75]]


@pytest.mark.parametrize("api", ["classify", "regress"])
def test_examples_are_rows_too(api: str, tmp_path: Path) -> None:
    """Features are inputs by their names, a context counts for all, what is missing is NaN, and predicts go along."""
    record = prediction_log_pb2.PredictionLog()
    record.log_metadata.model_spec.name, record.log_metadata.model_spec.version.value = "m", 2
    given = getattr(record, f"{api}_log").request.input.example_list_with_context
    given.context.features.feature["id"].bytes_list.value.append(b"all")
    given.examples.add().features.feature["x"].float_list.value.append(0.25)
    other = given.examples.add().features.feature
    other["id"].bytes_list.value.append(b"own")
    other["not an input"].int64_list.value.extend([1, 2, 3])
    write(tmp_path / "log", record.SerializeToString(), prediction_log(2, 0.5, "c"))
    found = rows(tmp_path)
    assert found.inputs["x"].tolist() == pytest.approx([0.25, float("nan"), 0.5], nan_ok=True)
    assert found.inputs["id"].tolist() == [b"all", b"own", b"c"]
    assert found.answered.tolist() == [False, False, True]
    assert found.outputs["output"].tolist() == [[0.5, 0.5]]


CLASSES = Profile((), (), "output", "classification", ("no", "yes"))
VALUES = Profile((), (), "output", "regression")


def example_log(api: str, answers: dict[str, Any]) -> prediction_log_pb2.PredictionLog:
    """Two rows, 0.25 and 0.75, as TensorFlow Serving logs what is asked by ``tf.Example``; `answers` as JSON."""
    record = prediction_log_pb2.PredictionLog()
    record.log_metadata.model_spec.name, record.log_metadata.model_spec.version.value = "m", 2
    logged = getattr(record, f"{api}_log")
    for x in (0.25, 0.75):
        logged.request.input.example_list.examples.add().features.feature["x"].float_list.value.append(x)
    ParseDict(answers, logged.response)
    return record


def classified(*rows: dict[str, float]) -> dict[str, Any]:
    """A result that names a score for each label of a row."""
    classes = [[{"label": label, "score": score} for label, score in row.items()] for row in rows]
    return {"classifications": [{"classes": each} for each in classes]}


LABELLED = classified({"yes": 0.75, "no": 0.25}, {"yes": 1.0})
REGRESSED = {"regressions": [{"value": 3}, {"value": 4}]}
BY_CLASS = [[0.25, 0.75], [0.0, 1.0]]


@pytest.mark.parametrize(
    ("api", "response", "profile", "answers"),
    [
        pytest.param("classify", {"result": LABELLED}, CLASSES, BY_CLASS, id="labels in any order"),
        pytest.param(
            "classify", {"result": classified({"": 0.25}, {"": 1.0})}, CLASSES, [[0.25], [1.0]], id="no labels"
        ),
        pytest.param("regress", {"result": REGRESSED}, VALUES, [3.0, 4.0], id="values"),
        pytest.param(
            "multi_inference",
            {"results": [{"regressionResult": REGRESSED}, {"classificationResult": LABELLED}]},
            CLASSES, BY_CLASS, id="several",
        ),
    ],
)  # fmt: skip
def test_what_examples_were_answered(
    api: str, response: dict[str, Any], profile: Profile, answers: list[Any], tmp_path: Path
) -> None:
    """It has the form of a predict's answers, and so is compared as these are."""
    write(tmp_path / "log", example_log(api, response).SerializeToString())
    found = rows(tmp_path, profile=profile)
    assert found.answered.tolist() == [True, True]
    assert found.outputs["output"].tolist() == answers


@pytest.mark.parametrize(
    ("api", "response", "profile"),
    [
        pytest.param("classify", {"result": classified({"perhaps": 1.0}, {"no": 1.0})}, CLASSES, id="other classes"),
        pytest.param("classify", {"result": LABELLED}, VALUES, id="classes for values"),
        pytest.param("classify", {}, CLASSES, id="no classes"),
        pytest.param("regress", {}, VALUES, id="no values"),
        pytest.param("multi_inference", {"results": [{"modelSpec": {"name": "m"}}]}, VALUES, id="no result"),
    ],
)
def test_answers_of_another_kind_are_none(api: str, response: dict[str, Any], profile: Profile, tmp_path: Path) -> None:
    """The rows count, and what was answered is left out."""
    write(tmp_path / "log", example_log(api, response).SerializeToString())
    found = rows(tmp_path, profile=profile)
    assert found.inputs["x"].tolist() == [0.25, 0.75]
    assert not found.answered.any()


def test_examples_of_different_lengths_are_no_rows(tmp_path: Path) -> None:
    """They are passed over, and the rest is read."""
    record = prediction_log_pb2.PredictionLog()
    record.classify_log.response.model_spec.name = "m"
    examples = record.classify_log.request.input.example_list.examples
    for values in ([0.25], [0.5, 0.75]):
        examples.add().features.feature["x"].float_list.value.extend(values)
    write(tmp_path / "log", record.SerializeToString(), prediction_log(2, 0.5, "c"))
    assert rows(tmp_path).inputs["x"].tolist() == [0.5]


def test_older_rows_are_left_out(tmp_path: Path) -> None:
    """With a time to begin with, what was asked before is not read."""
    write(tmp_path / "log", prediction_log(2, 0.25, "a", seconds=1_700_000_000), prediction_log(2, 0.5, "b"))
    assert rows(tmp_path, since=datetime.fromtimestamp(1_750_000_000, UTC)).inputs["x"].tolist() == [0.5]
    assert len(rows(tmp_path, since=datetime(2100, 1, 1, tzinfo=UTC))) == 0


def test_a_file_that_is_cut_off(tmp_path: Path) -> None:
    """Of a file that a crash has cut off, the whole records are read."""
    path = write(tmp_path / "log", prediction_log(2, 0.25, "a"), prediction_log(2, 0.5, "b"))
    path.write_bytes(path.read_bytes()[:-10])
    assert rows(tmp_path).inputs["x"].tolist() == [0.25]


def test_no_log(tmp_path: Path) -> None:
    """Where there is no log, the message says how to get one."""
    with pytest.raises(NoLog, match="HOTSWAP_REQUEST_LOG"):
        rows(tmp_path / "nothing")


PROFILE = Profile(
    (ColumnProfile("x", Kind.NUMBER, 10, 0), ColumnProfile("id", Kind.CATEGORY, 10, 0)),
    (), "output", "classification", ("no", "yes"),
)  # fmt: skip


def score(directory: Path, truth: dict[str, Any], *on: str) -> LiveScore:
    """Of ten rows that were answered 0.0, 0.1, … 0.9, so that the last four are a yes."""
    write(directory / "log", *(prediction_log(2, number / 10, f"row{number}") for number in range(10)))
    pd.DataFrame(truth).to_csv(directory.parent / "truth.csv", index=False)
    return live_score(Truth(directory.parent / "truth.csv", "said", on), PROFILE, rows(directory), None)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "log").mkdir()
    return tmp_path / "log"


def test_the_truth_is_joined_by_a_row_id(directory: Path) -> None:
    """By an id that is an input, the accuracy of the answers to the rows that are known, with its interval."""
    truth = {"id": [f"row{number}" for number in (0, 1, 2, 9, 77)], "said": ["no", "no", "yes", "yes", "no"]}
    found = score(directory, truth, "id")
    assert (found.name, found.rows, found.of, found.value) == ("accuracy", 4, 5, 0.75)
    assert found.low == pytest.approx(0.3006, abs=1e-4)  # Wilson's interval for 3 of 4
    assert found.high == pytest.approx(0.9544, abs=1e-4)


def test_the_truth_is_joined_by_the_inputs(directory: Path) -> None:
    """Without an id a row is known by all of its inputs; one with two truths is left out."""
    truth = {"x": [0.1, 0.9, 0.3, 0.3], "id": ["row1", "row9", "row3", "row3"], "said": ["no", "no", "no", "yes"]}
    found = score(directory, truth)
    assert (found.rows, found.value) == (2, 0.5)


@pytest.mark.parametrize(
    ("truth", "on", "why"),
    [
        ({"id": ["row1"], "other": ["no"]}, ("id",), "has no column 'said'"),
        ({"id": ["row1"], "said": ["maybe"]}, ("id",), "has 'maybe', and the classes of the model are no, yes"),
        ({"key": ["row1"], "said": ["no"]}, ("id",), "has no column 'id'"),
        ({"id": ["row77"], "said": ["no"]}, ("id",), "No row of .* was logged with the same id"),
    ],
)
def test_a_truth_that_cannot_be_used(directory: Path, truth: dict[str, Any], on: tuple[str, ...], why: str) -> None:
    """What is wrong with the file is said, with what to do."""
    with pytest.raises(UnusableTable, match=why):
        score(directory, truth, *on)


def test_the_error_of_values(directory: Path) -> None:
    """Of a regression it is the mean absolute error, with its interval."""
    records = []
    for number in range(50):
        record = prediction_log_pb2.PredictionLog.FromString(prediction_log(2, number, f"row{number}"))
        record.predict_log.response.outputs["output"].CopyFrom(tf.make_tensor_proto([[number + 1.0]], tf.float32))
        records.append(record.SerializeToString())
    write(directory / "log", *records)
    truth = {"id": [f"row{number}" for number in range(50)], "said": [float(number) for number in range(50)]}
    pd.DataFrame(truth).to_csv(directory.parent / "truth.csv", index=False)
    profile = Profile(PROFILE.columns, (), "output", "regression")
    found = live_score(Truth(directory.parent / "truth.csv", "said", ("id",)), profile, rows(directory), None)
    assert (found.name, found.rows, found.value) == ("mae", 50, 1.0)
    assert found.low == found.high == 1.0
