"""The baselines that a model is held against."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import r2_score, roc_auc_score

from flows.data.ids import row_ids
from flows.data.rows import Inputs, Rows
from flows.tasks import Classification, MultiLabel, OwnTask, Regression, Task
from flows.training.baselines import Baselines, fit_baselines

RANDOM = np.random.default_rng(3)
AGES = RANDOM.normal(40, 12, 600).astype(np.float32)
PLANS = np.array(["basic", "plus", ""], object)[RANDOM.integers(0, 3, 600)]
LEAVES = (AGES - 40) / 6 + 2 * (PLANS == "plus") + RANDOM.normal(0, 1, 600) > 0


def rows(inputs: Inputs, targets: NDArray[Any], part: slice) -> Rows:
    taken = {name: values[part] for name, values in inputs.items()}
    return Rows(taken, targets[part], row_ids(taken))


def fitted(task: Task, inputs: Inputs, targets: NDArray[Any]) -> tuple[Baselines, NDArray[Any]]:
    """The baselines of the first two thirds, and the truth of the rest."""
    found = fit_baselines(task, rows(inputs, targets, slice(400)), rows(inputs, targets, slice(400, None)))
    assert found is not None
    return found, targets[400:]


def test_classes_are_ranked_from_numbers_and_words() -> None:
    """Numbers with missing values and words are enough for a linear model, and the dummy knows the classes' shares."""
    ages = AGES.copy()
    ages[::9] = np.nan
    found, truth = fitted(Classification(("no", "yes")), {"age": ages, "plan": PLANS}, LEAVES.astype(np.int64))
    assert found.linear is not None
    assert roc_auc_score(truth, found.linear[:, 1]) > 0.85
    assert np.allclose(found.dummy, [1 - LEAVES[:400].mean(), LEAVES[:400].mean()])


def test_values_are_found_from_pictures() -> None:
    """An input of any rank is taken value by value."""
    pictures = RANDOM.normal(size=(600, 3, 2, 1)).astype(np.float32)
    values = np.stack([pictures[:, 0, 0, 0] * 3 + 1, -pictures[:, 2, 1, 0]], axis=1).astype(np.float64)
    found, truth = fitted(Regression(("one", "other")), {"input": pictures}, values)
    assert found.linear is not None
    assert r2_score(truth, found.linear) > 0.99
    assert found.dummy.shape == truth.shape


def test_texts_are_read_word_by_word() -> None:
    """A text of several words says something by each of them."""
    good = RANDOM.integers(0, 2, 600)
    texts = np.array([f"number {i} was {'fine' if each else 'bad'} all day" for i, each in enumerate(good)], object)
    found, truth = fitted(Classification(("bad", "fine")), {"review": texts}, good)
    assert found.linear is not None
    assert roc_auc_score(truth, found.linear[:, 1]) > 0.95


def test_labels_are_found_each_by_itself() -> None:
    """Several labels at once are as many linear models."""
    labels = np.stack([AGES > 40, PLANS == "plus"], axis=1)
    found, truth = fitted(MultiLabel(("old", "plus")), {"age": AGES, "plan": PLANS}, labels)
    assert found.linear is not None
    assert ((found.linear > 0.5) == truth).mean() > 0.9


def test_a_class_of_the_held_out_rows_alone_gets_no_probability() -> None:
    """The answers have a column for every class, whichever classes the training rows have."""
    classes = np.where(np.arange(600) < 400, LEAVES, 2).astype(np.int64)
    found, truth = fitted(Classification(("no", "yes", "unknown")), {"age": AGES}, classes)
    assert found.linear is not None
    assert found.linear.shape == (len(truth), 3)
    assert not found.linear[:, 2].any()


def test_a_task_of_ones_own_has_no_baseline() -> None:
    """Nothing is known about its answers."""
    train = rows({"age": AGES}, LEAVES, slice(400))
    assert fit_baselines(OwnTask(lambda truth, answers: truth == answers), train, train) is None


def test_one_class_leaves_the_dummy(caplog: pytest.LogCaptureFixture) -> None:
    """Where no linear model can be fitted the log says why, and the dummy is there all the same."""
    found, _ = fitted(Classification(("no", "yes")), {"age": AGES}, np.ones(600, np.int64))
    assert found.linear is None
    assert "no linear baseline" in caplog.text


def test_pictures_do_not_take_longer_than_their_network() -> None:
    """Many large rows give the linear model a part of them, and pictures of more than 5,000 values none at all."""
    import time

    classes = RANDOM.integers(0, 2, 4000)
    pixels = (RANDOM.random((4000, 28, 28, 1)) + classes[:, None, None, None] * 0.1).astype(np.float32)
    train, test = (rows({"input": pixels}, classes, part) for part in (slice(3500), slice(3500, None)))
    started = time.process_time()
    found = fit_baselines(Classification(("no", "yes")), train, test)
    assert time.process_time() - started < 20
    assert found is not None
    assert found.linear is not None
    assert roc_auc_score(classes[3500:], found.linear[:, 1]) > 0.9
    large = RANDOM.random((600, 50, 50, 3)).astype(np.float32)
    assert fitted(Classification(("no", "yes")), {"input": large}, classes[:600])[0].linear is None
