"""What is measured of a SavedModel, and of the champion on the same rows."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.data.rows import Rows
from flows.recipes import InvalidThresholds
from flows.recipes.finding import find_recipe
from flows.tasks import CannotEvaluate, Classification, Regression
from flows.training.candidate import load_candidate
from flows.training.champion import evaluate_champion
from flows.training.dataset import Dataset, load_dataset
from flows.training.export import export
from flows.training.inspection import inspect
from flows.training.predictor import load_predictor
from flows.training.seen_rows import TRAINING_ROWS
from flows.training.slices import cut, slices
from serving.repository.stamp import GoldenRows, Stamp
from tests.benchmarks.gate_errors import seconds_for_many_rows

RECIPE = find_recipe("iris")
WORDS = np.array([f"w{number % 14}" for number in range(15)], object)
DAYS = np.array([f"2026-01-{day:02}" for day in range(1, 13)], object)


@pytest.fixture(scope="module")
def iris() -> Dataset:
    return load_dataset(RECIPE)


@pytest.fixture(scope="module")
def exported(iris: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SavedModel of Iris as the flow exports it, untrained."""
    path = tmp_path_factory.mktemp("exported") / "saved_model"
    export(RECIPE.build(iris.train.examples), iris, "iris", path)
    return path


def test_the_exported_files_are_evaluated(exported: Path, iris: Dataset) -> None:
    """The answers are those of the signature that is served, however many rows are asked at once."""
    found = answered(exported, iris.test)
    assert found.shape == (30, 3)
    one_by_one = [answered(exported, iris.test.take(np.array([i])))[0] for i in (0, 29)]
    np.testing.assert_allclose(found[[0, 29]], one_by_one, atol=1e-6)


def answered(saved_model: Path, rows: Rows) -> Any:
    """The judged output for these rows."""
    predict = load_predictor(saved_model)
    return predict.judged(predict(rows.inputs))


def test_a_model_that_does_not_answer_is_reported_in_one_sentence(
    tiny_model: Any, iris: Dataset, tmp_path: Path
) -> None:
    """Missing files, other inputs and another number of classes each have a name."""
    with pytest.raises(CannotEvaluate, match="nothing does not answer"):
        load_predictor(tmp_path / "nothing")
    tiny = tiny_model(tmp_path, 1)
    with pytest.raises(CannotEvaluate, match=r"shape \[30, 3\], not \[30, 5\]"):
        Classification(tuple("abcde")).evaluate(iris.test.targets, answered(tiny, iris.test))
    narrow = replace(iris.test, inputs={"input": iris.test.examples[:, :2]})
    with pytest.raises(CannotEvaluate, match=r"its input has shape \(None, 4\), which \[30, 2\] does not fit"):
        answered(tiny, narrow)


def test_the_champion_is_evaluated_on_the_same_rows(
    exported: Path, tiny_model: Any, iris: Dataset, tmp_path: Path
) -> None:
    """Its files answer the held-out rows now, and the candidate answers the rows that were kept with it."""
    tiny = tiny_model(tmp_path, 1)
    kept = iris.test.examples[:5]
    answers = answered(exported, iris.test)[:5]
    stamp = Stamp(
        golden=GoldenRows({"input": kept}, {"output": answers}),
        dataset_digest=iris.digest,
        metrics={"test_accuracy": 1.0},
    )
    found = evaluate_champion(exported, 7, stamp, load_predictor(tiny), iris)
    assert (found.version, found.notes) == (7, ())
    assert found.inspection is not None
    assert found.evaluation is not None
    assert found.evaluation.metrics == iris.task.evaluate(iris.test.targets, answered(exported, iris.test)).metrics
    assert found.comparable is found.evaluation
    assert found.golden is not None
    np.testing.assert_allclose(found.golden.champion, answers)
    assert found.golden.candidate is not None
    np.testing.assert_allclose(found.golden.candidate[:, 0], kept.sum(axis=1) + 1, rtol=1e-5)


def test_what_makes_the_comparison_uncertain_is_noted(exported: Path, iris: Dataset, tmp_path: Path) -> None:
    """Other training data, of a version that does not keep which, and answers that are not those of the promotion."""
    older = shutil.copytree(exported, tmp_path / "older")
    (older / TRAINING_ROWS).unlink()
    wrong = np.full((5, 3), 1 / 3, np.float32)
    stamp = Stamp(golden=GoldenRows({"input": iris.test.examples[:5]}, {"output": wrong}), dataset_digest="another")
    found = evaluate_champion(older, 7, stamp, load_predictor(exported), iris)
    assert found.evaluation is not None
    assert [note for note in found.notes if "golden rows differently" in note]
    assert [note for note in found.notes if "trained on other data" in note]


def with_training_rows(saved_model: Path, rows: Rows, tmp_path: Path) -> Path:
    """A copy of a version that keeps the ids of these rows as those that it was trained on."""
    copy = shutil.copytree(saved_model, tmp_path / "copy")
    np.save(copy / TRAINING_ROWS, np.sort(rows.ids))
    return copy


@pytest.mark.parametrize("seen", [0, 12, 30])
def test_rows_that_the_champion_has_seen_are_left_out(seen: int, exported: Path, iris: Dataset, tmp_path: Path) -> None:
    """They are told by their ids, and the note says how many remain; where none do, there is no comparison."""
    path = with_training_rows(exported, iris.test.take(np.arange(seen)), tmp_path)
    found = evaluate_champion(path, 7, Stamp(dataset_digest="another"), load_predictor(exported), iris)
    assert found.unseen.sum() == 30 - seen
    if seen == 0:
        assert found.notes == ()
    else:
        assert f"trained on {seen} of the 30 held-out rows" in found.notes[0]
    if seen == 12:
        assert "compared on the other 18" in found.notes[0]
        assert found.comparable is not None
        np.testing.assert_array_equal(found.comparable.targets, iris.test.targets[12:])
    assert (found.comparable is None) == (seen == 30)


def test_rows_that_the_candidate_has_seen_do_not_judge_it(exported: Path, iris: Dataset, tmp_path: Path) -> None:
    """A model from another split is judged by the rows that are new to it; without any, that is said."""
    half = with_training_rows(exported, iris.test.take(np.arange(15)), tmp_path)
    candidate = load_candidate(RECIPE, iris, half, inspect(half))
    assert len(candidate.evaluation) == len(candidate.dataset.test) == len(candidate.inputs["input"]) == 15
    np.save(half / TRAINING_ROWS, np.sort(iris.test.ids))
    with pytest.raises(CannotEvaluate, match="trained on all held-out rows"):
        load_candidate(RECIPE, iris, half, inspect(half))


def test_a_champion_whose_values_are_nan_is_reported(tiny_model: Any, iris: Dataset, tmp_path: Path) -> None:
    """There is nothing to compare with, and the note says how many rows it cannot answer."""
    examples = iris.test.examples.copy()
    examples[:2] = np.nan
    test = replace(iris.test, inputs={"input": examples}, targets=np.random.default_rng(0).normal(size=(30, 3)))
    dataset = replace(iris, test=test, task=Regression(("a", "b", "c")))
    tiny = tiny_model(tmp_path, 1)
    found = evaluate_champion(tiny, 1, Stamp(), load_predictor(tiny), dataset)
    assert found.evaluation is None
    assert found.notes == ("it cannot be evaluated: 2 of 30 rows are answered by NaN or infinite values",)


@pytest.mark.parametrize("broken", ["saved_model.pb", "variables/variables.index"])
def test_a_champion_that_is_broken_is_reported(
    broken: str, exported: Path, tiny_model: Any, iris: Dataset, tmp_path: Path
) -> None:
    """Files that were spoiled after the promotion give no evaluation, and a note with the reason."""
    path = tiny_model(tmp_path, 1)
    (path / broken).write_bytes(b"spoiled")
    found = evaluate_champion(path, 1, Stamp(), load_predictor(exported), iris)
    assert found.evaluation is None
    assert [note for note in found.notes if "cannot be evaluated" in note]
    assert (found.inspection is None) == (broken == "saved_model.pb")


def test_slices_are_classes_and_the_columns_that_are_named(iris: Dataset) -> None:
    """A column with few values is cut by value, one with many in quarters; every row is in one slice of each."""
    answers = np.eye(3, dtype=np.float32)[np.where(iris.test.targets == 2, 1, iris.test.targets)]
    evaluation = iris.task.evaluate(iris.test.targets, answers)
    examples = iris.test.examples.copy()
    examples[:, 3] = np.where(iris.test.targets == 2, 9, 5)
    dataset = replace(iris, test=replace(iris.test, inputs={"input": examples}))
    found = slices(evaluation, dataset, ("petal_length_cm", "petal_width_cm"))
    by_class = {each.name: (each.rows, each.score) for each in found if each.by == "class"}
    assert by_class == {"setosa": (10, 1.0), "versicolor": (10, 1.0), "virginica": (10, 0.0)}
    by_value = {each.name: (each.rows, each.score) for each in found if each.by == "petal_width_cm"}
    assert by_value == {"5": (20, 1.0), "9": (10, 0.0)}
    quarters = [each for each in found if each.by == "petal_length_cm"]
    assert len(quarters) == 4
    assert sum(each.rows for each in quarters) == 30
    assert sum(each.rows * each.score for each in quarters) == pytest.approx(20)
    assert quarters[0].name.startswith("<= ")
    assert quarters[0].score == 1.0


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array(["basic", "", "pro", "basic"], object), {"basic": 2, "pro": 1, "missing": 1}),
        (np.array([b"a", b"b", b"a"], object), {"a": 2, "b": 1}),
        (np.array([True, False, True]), {"False": 1, "True": 2}),
        (np.array([1, 2, 2, 3]), {"1": 1, "2": 2, "3": 1}),
        (np.array([0.5, np.nan, 0.5, 2.0], np.float32), {"0.5": 2, "2": 1, "missing": 1}),
        (
            np.append(np.arange(12.0), np.nan),
            {"<= 2.75": 3, "2.75 to 5.5": 3, "5.5 to 8.25": 3, "> 8.25": 3, "missing": 1},
        ),
        (np.array([0.0] * 90 + [*range(1, 12)]), {"<= 0": 90, "> 0": 11}),
        (WORDS, {"w0": 2, "other": 4} | {f"w{i}": 1 for i in range(1, 10)}),
        (DAYS, {"<= 2026-01-03": 3, "2026-01-03 to 2026-01-06": 3, "2026-01-06 to 2026-01-09": 3, "> 2026-01-09": 3}),
        (np.full(3, np.nan), {"missing": 3}),
    ],
)
def test_a_column_of_any_kind_is_cut_into_slices(values: Any, expected: dict[str, int]) -> None:
    """Few values stand by themselves, many numbers and dates in quarters, rare words together, missing ones apart."""
    names, groups = cut(values)
    assert {
        name: int(rows) for name, rows in zip(names, np.bincount(groups, minlength=len(names)), strict=True) if rows
    } == expected


def test_slices_of_values_have_their_mean_score(iris: Dataset) -> None:
    """A regression has no classes, so that its slices are those of the columns; one that is not there is named."""
    targets = np.arange(30.0)[:, None]
    evaluation = Regression().evaluate(targets, targets + (np.arange(30) % 2)[:, None])
    dataset = replace(iris, test=replace(iris.test, extras={"side": np.array(["left", "right"] * 15, object)}))
    left, right = slices(evaluation, dataset, ("side",))
    assert (left.name, left.rows, left.score) == ("left", 15, 0)
    assert right.score == pytest.approx(-1 / 7.5)
    with pytest.raises(InvalidThresholds, match="no column 'nothing' to look at slices of; there are sepal_length_cm"):
        slices(evaluation, dataset, ("nothing",))
    with pytest.raises(InvalidThresholds, match="'input' has more than one value a row"):
        slices(evaluation, dataset, ("input",))


def test_a_million_rows_are_judged_in_seconds() -> None:
    """Evaluation, champion, slices of four columns and the test of non-inferiority; a tenth in a processor second."""
    assert seconds_for_many_rows(100_000, time.process_time) < 1
