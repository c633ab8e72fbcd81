"""What is measured of a SavedModel, and of the champion on the same rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.data.rows import Rows
from flows.recipes import find_recipe
from flows.tasks import CannotEvaluate
from flows.training.champion import evaluate_champion
from flows.training.dataset import Dataset, load_dataset
from flows.training.evaluation import compare, evaluate, slices
from flows.training.export import export
from flows.training.predictor import load_predictor
from serving.repository.stamp import GoldenRows, Stamp
from tests.benchmarks.gate_errors import seconds_for_many_rows

RECIPE = find_recipe("iris")
PROBABILITIES = np.array([[0.8, 0.2], [0.3, 0.7], [0.6, 0.4], [0.1, 0.9]], np.float32)


@pytest.fixture(scope="module")
def iris() -> Dataset:
    return load_dataset(RECIPE)


@pytest.fixture(scope="module")
def exported(iris: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SavedModel of Iris as the flow exports it, untrained."""
    path = tmp_path_factory.mktemp("exported") / "saved_model"
    export(RECIPE.build(iris.train.examples), iris, "iris", path)
    return path


def test_metrics_are_those_of_scikit_learn() -> None:
    """Accuracy, macro F1 and log loss agree with the library that everybody compares with."""
    from sklearn import metrics

    random = np.random.default_rng(0)
    exact = random.dirichlet(np.ones(4), 200)
    probabilities = exact.astype(np.float32)
    classes = random.integers(0, 4, 200)
    found = compare(probabilities, classes)
    predicted = probabilities.argmax(axis=1)
    assert found.accuracy == pytest.approx(metrics.accuracy_score(classes, predicted)) == found.right.mean()
    assert found.macro_f1 == pytest.approx(metrics.f1_score(classes, predicted, average="macro"))
    assert found.log_loss == pytest.approx(metrics.log_loss(classes, exact), rel=1e-4)


def test_the_exported_files_are_evaluated(exported: Path, iris: Dataset) -> None:
    """The answers are those of the signature that is served, however many rows are asked at once."""
    found = evaluate(answered(exported, iris.test), iris.test, 3)
    assert found.probabilities.shape == (30, 3)
    one_by_one = [answered(exported, iris.test.take(np.array([i])))[0] for i in (0, 29)]
    np.testing.assert_allclose(found.probabilities[[0, 29]], one_by_one, atol=1e-6)


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
        evaluate(answered(tiny, iris.test), iris.test, 5)
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
    assert found.evaluation.accuracy == evaluate(answered(exported, iris.test), iris.test, 3).accuracy
    assert found.golden is not None
    np.testing.assert_allclose(found.golden.champion, answers)
    assert found.golden.candidate is not None
    np.testing.assert_allclose(found.golden.candidate[:, 0], kept.sum(axis=1) + 1, rtol=1e-5)


def test_what_makes_the_comparison_uncertain_is_noted(exported: Path, iris: Dataset) -> None:
    """Other training data, and answers that are no longer those of the promotion."""
    wrong = np.full((5, 3), 1 / 3, np.float32)
    stamp = Stamp(golden=GoldenRows({"input": iris.test.examples[:5]}, {"output": wrong}), dataset_digest="another")
    found = evaluate_champion(exported, 7, stamp, load_predictor(exported), iris)
    assert found.evaluation is not None
    assert [note for note in found.notes if "golden rows differently" in note]
    assert [note for note in found.notes if "trained on other data" in note]


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
    evaluation = compare(answers, iris.test.targets)
    examples = iris.test.examples.copy()
    examples[:, 3] = np.where(iris.test.targets == 2, 9, 5)
    dataset = replace(iris, test=replace(iris.test, inputs={"input": examples}))
    found = slices(evaluation, dataset, ("petal_length_cm", "petal_width_cm"))
    by_class = {each.name: (each.rows, each.accuracy) for each in found if each.by == "class"}
    assert by_class == {"setosa": (10, 1.0), "versicolor": (10, 1.0), "virginica": (10, 0.0)}
    by_value = {each.name: (each.rows, each.accuracy) for each in found if each.by == "petal_width_cm"}
    assert by_value == {"5": (20, 1.0), "9": (10, 0.0)}
    quarters = [each for each in found if each.by == "petal_length_cm"]
    assert len(quarters) == 4
    assert sum(each.rows for each in quarters) == 30
    assert sum(each.rows * each.accuracy for each in quarters) == pytest.approx(20)
    assert quarters[0].name.startswith("<= ")
    assert quarters[0].accuracy == 1.0


def test_a_million_rows_are_judged_in_seconds() -> None:
    """Evaluation, champion, slices of four columns and the test of non-inferiority; a tenth of them within a second."""
    assert seconds_for_many_rows(100_000) < 1
