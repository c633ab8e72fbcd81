"""The model of a table: what clients may send, what it answers, and how good it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from numpy.typing import NDArray
from sklearn.metrics import r2_score, roc_auc_score

from flows.recipes import Recipe
from flows.tables.making import table_recipe
from flows.tables.options import TableOptions
from flows.training import fit
from flows.training.baselines import fit_baselines
from flows.training.candidate import Candidate, load_candidate
from flows.training.dataset import Dataset, load_dataset
from flows.training.explanation import explain_candidate
from flows.training.export import export
from flows.training.inspection import inspect
from flows.training.predictor import load_predictor
from serving.runtime.saved_model import LoadOptions, load
from tests.flows.tables.tables import customers, written

pytestmark = pytest.mark.xdist_group("table-model")  # one worker trains, once for all of these

EPOCHS = 8


@dataclass(frozen=True)
class Exported:
    """A trained table and its files."""

    recipe: Recipe
    dataset: Dataset
    path: Path

    @cached_property
    def candidate(self) -> Candidate:
        return load_candidate(self.recipe, self.dataset, self.path, inspect(self.path))

    @cached_property
    def answers(self) -> NDArray[Any]:
        """To the held-out rows."""
        predict = load_predictor(self.path)
        return predict.judged(predict(predict.bind(self.dataset.test.inputs)))

    def ask(self, **changed: Any) -> NDArray[np.float32]:
        """The answer to a customer like the first, with these values changed."""
        row: Mapping[str, Any] = {name: values[:1] for name, values in self.candidate.inputs.items()}
        values = {name: np.array([value], row[name].dtype) for name, value in changed.items()}
        answer: NDArray[np.float32] = self.candidate.predict({**row, **values})["output"]
        return answer


def fitted(recipe: Recipe, dataset: Dataset, epochs: int) -> Any:
    return fit.fit(recipe, dataset, 1, epochs, lambda epoch, metrics: None).model


def trained(directory: Path, frame: pd.DataFrame, target: str, epochs: int = EPOCHS, **options: Any) -> Exported:
    recipe = table_recipe(TableOptions(written(frame, directory / "some.csv"), target, **options))
    dataset = load_dataset(recipe)
    path = directory / "saved_model"
    export(fitted(recipe, dataset, epochs), dataset, "some", path)
    return Exported(recipe, dataset, path)


@pytest.fixture(scope="module")
def churn(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return trained(tmp_path_factory.mktemp("churn"), customers(800), "churned")


def test_clients_send_raw_columns_by_name(churn: Exported) -> None:
    """One tensor [batch] a column in its type, text or number; the answer is probabilities, and a class by name."""
    found = churn.candidate.inspection
    assert found.signatures["serving_default"].inputs == {
        "age": "float32 [-1]",
        "plan": "string [-1]",
        "joined": "string [-1]",
        "is_active": "string [-1]",
        "note": "string [-1]",
        "spend": "float32 [-1]",
    }
    assert found.signatures["serving_default"].outputs == {"output": "float32 [-1, 2]"}
    assert found.class_names == ("no", "yes")
    assert not found.unsafe_ops


def test_it_learns_from_every_kind_of_column(churn: Exported) -> None:
    """Numbers, words and texts, each of which the target depends on, matter; what says nothing does not."""
    found = explain_candidate(churn.candidate)
    importance = {each.input: each.mean for each in found.importances}
    assert [each.input for each in found.importances[:3]] == ["age", "plan", "note"]
    assert min(importance[name] for name in ("age", "plan", "note")) > 0.01 > abs(importance["is_active"])
    assert churn.candidate.evaluation.metrics["roc_auc"] > 0.8
    assert found.worst[0]["target"] != found.worst[0]["answer"]
    assert "| age |" in found.markdown


@pytest.mark.parametrize(
    "changed",
    [
        {"age": np.nan},
        {"spend": np.inf},
        {"age": 1e30},
        {"plan": ""},
        {"plan": "never seen"},
        {"note": ""},
        {"note": "ünïcödé 漢字 !!!"},
        {"joined": ""},
        {"joined": "not a date"},
        {"joined": "2031-12-24"},
        {"is_active": "perhaps"},
    ],
)
def test_whatever_clients_send_is_answered(churn: Exported, changed: dict[str, Any]) -> None:
    """Missing, unseen and absurd values give probabilities all the same."""
    answer = churn.ask(**changed)
    assert np.isfinite(answer).all()
    assert np.allclose(answer.sum(axis=1), 1, atol=1e-5)


def test_blanks_and_case_make_no_difference_where_they_mean_none(churn: Exported) -> None:
    """Blanks around a word are no part of it, and yes is YES."""
    assert np.array_equal(churn.ask(plan="basic", is_active="yes"), churn.ask(plan=" basic ", is_active="YES"))


def test_without_texts_its_rows_merge(tmp_path: Path) -> None:
    """The graph is proven to treat the rows of a batch independently, so that the server runs requests together."""
    found = trained(tmp_path, customers().drop(columns="note"), "churned", epochs=1)
    servable = load("some", 1, found.path, LoadOptions())
    obstacles = [servable.obstacle(servable.signatures[each]) for each in ("serving_default", "classify_class")]
    servable.close()
    assert obstacles == [None, None]


def test_the_same_seed_gives_the_same_answers(churn: Exported) -> None:
    """Training again gives the same model."""
    again = fitted(churn.recipe, churn.dataset, EPOCHS)
    test = {name: tf.constant(values) for name, values in churn.dataset.test.inputs.items()}
    assert np.allclose(again(test, training=False), churn.answers, atol=1e-5)


def test_values_come_in_the_unit_of_the_target(tmp_path: Path) -> None:
    """A regression bends where a line does not, and answers float32 [batch, 1] in thousands, not in deviations."""
    random = np.random.default_rng(0)
    size, town = random.uniform(0, 10, 1500), random.choice(["near", "far"], 1500)
    price = 50_000 + 20_000 * np.sin(size) * (town == "near") + 3_000 * size + random.normal(0, 1000, 1500)
    found = trained(tmp_path, pd.DataFrame({"size": size, "town": town, "price": price}), "price", epochs=25)
    test = found.dataset.test
    baselines = fit_baselines(found.dataset.task, found.dataset.train, test)
    assert baselines is not None
    assert baselines.linear is not None
    assert found.answers.shape == (len(test), 1)
    assert r2_score(test.targets, found.answers) > 0.95 > 0.6 > r2_score(test.targets, baselines.linear)


def test_it_is_no_worse_than_the_linear_model_where_there_is_nothing_else(tmp_path: Path) -> None:
    """Few rows of noise around a line do not make it invent more: it keeps to what the linear model says."""
    random = np.random.default_rng(5)
    numbers = random.normal(size=(200, 6))
    odds = numbers @ np.array([1.5, -1, 0, 0, 0, 0]) + random.normal(0, 1, 200)
    frame = pd.DataFrame(numbers, columns=[f"n{each}" for each in range(6)]).assign(y=np.where(odds > 0, "a", "b"))
    found = trained(tmp_path, frame, "y", epochs=12)
    baselines = fit_baselines(found.dataset.task, found.dataset.train, found.dataset.test)
    assert baselines is not None
    assert baselines.linear is not None
    truth = found.dataset.test.targets
    ours, linear = (roc_auc_score(truth, each[:, 1]) for each in (found.answers, baselines.linear))
    assert ours >= linear - 0.02


def test_ten_thousand_categories_and_rare_classes(tmp_path: Path) -> None:
    """A column of as many words as rows allow is learned from, and so is a class of one row in fifty."""
    random = np.random.default_rng(2)
    word = random.integers(0, 1500, 6000)
    rare = (word % 50 == 7) & (random.random(6000) < 0.9)
    frame = pd.DataFrame({"word": [f"w{each}" for each in word], "noise": random.normal(size=6000), "y": rare})
    found = trained(tmp_path, frame, "y", epochs=2)
    assert roc_auc_score(found.dataset.test.targets, found.answers[:, 1]) > 0.9


KINDS = {
    "numbers": ["age", "spend"],
    "words": ["plan", "is active", "city"],
    "dates": ["joined"],
    "texts": ["note"],
    "unique texts": ["tag"],
}
IN_MAKE_TEST = ("texts",)


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind in IN_MAKE_TEST else pytest.mark.soak) for kind in KINDS]
)
def test_a_table_may_have_columns_of_one_kind_only(tmp_path: Path, kind: str) -> None:
    """Nothing but numbers, or none at all; the exported model answers."""
    frame = customers(120)
    frame["city"] = [f"city {each % 17}" for each in range(120)]
    frame["tag"] = [f"a{each} b{each} c{each}" for each in range(120)]
    found = trained(
        tmp_path, frame[[*KINDS[kind], "churned"]], "churned", epochs=1, keep=("tag",) * ("tag" in KINDS[kind])
    )
    assert np.isfinite(found.answers).all()
