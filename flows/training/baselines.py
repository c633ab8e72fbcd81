"""
What a model has to beat: a dummy that looks at no input, and a linear model, both fitted on the model's training rows.

Both are scikit-learn's, behind the usual preprocessing: numbers standardised with their median where they are missing,
words one-hot, texts by TF-IDF, pictures pixel by pixel.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flows.data.rows import Inputs, Rows
from flows.tasks import Classification, MultiLabel, Regression, Task

log = logging.getLogger(__name__)

DUMMY, LINEAR = "dummy", "linear"

_MAX_ROWS = 50_000
_MAX_VALUES = 1_000_000  # of all rows together: a logistic regression of as many takes some seconds
_MAX_FEATURES = 5_000
_TEXT_WORDS = 3.0


@dataclass(frozen=True, slots=True)
class Baselines:
    """Answers to the held-out rows, in the form of a model's: float64 [rows, classes, labels or values]."""

    dummy: NDArray[np.float64]
    """the classes' shares, or the mean"""
    linear: NDArray[np.float64] | None
    """of logistic or ridge regression; None where none can be fitted"""


def fit_baselines(task: Task, train: Rows, test: Rows) -> Baselines | None:
    """
    Fit both baselines on the training rows, of which large data sets give a part, and ask them the held-out rows.

    Returns:
        Their answers; None for a task of a recipe's own, of which scikit-learn knows nothing.
    """
    if not isinstance(task, Classification | MultiLabel | Regression):
        return None
    values = sum(array[:1].size for array in train.inputs.values())
    most = min(_MAX_ROWS, _MAX_VALUES // max(1, values))
    if len(train) > most:
        train = train.take(np.sort(np.random.default_rng(0).choice(len(train), most, replace=False)))
    dummy = fit_dummy(task, train, test)
    assert dummy is not None
    if values > _MAX_FEATURES:
        log.info("no linear baseline for rows of %d values", values)
        return Baselines(dummy, None)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a fit that has not converged, which is a baseline all the same
            linear = _linear(task, train, test)
    except Exception as exc:  # Data of any form may come; without this baseline the dummy is left.
        log.warning("no linear baseline: %s: %s", type(exc).__name__, exc)
        return Baselines(dummy, None)
    return Baselines(dummy, linear)


def fit_dummy(task: Task, train: Rows, test: Rows) -> NDArray[np.float64] | None:
    """The answers of a model that answers every row alike; None for a task of a recipe's own."""
    if not isinstance(task, Classification | MultiLabel | Regression):
        return None
    truth = train.targets.reshape(len(train), -1).astype(np.float64)
    return np.tile(_constant(task, truth), (len(test), 1))


def _constant(task: Task, truth: NDArray[np.float64]) -> NDArray[np.float64]:
    if isinstance(task, Classification):
        return np.bincount(truth[:, 0].astype(np.int64), minlength=len(task.class_names)) / len(truth)
    return np.asarray(truth.mean(axis=0))


def _linear(task: Classification | MultiLabel | Regression, train: Rows, test: Rows) -> NDArray[np.float64]:
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline

    rows, held_out = _frame(train.inputs), _frame(test.inputs)
    if isinstance(task, Regression):
        fitted = make_pipeline(_preprocessing(rows), Ridge()).fit(rows, train.targets)
        return np.asarray(fitted.predict(held_out), np.float64).reshape(len(test), -1)
    logistic = LogisticRegression(max_iter=300)
    if isinstance(task, MultiLabel):
        fitted = make_pipeline(_preprocessing(rows), OneVsRestClassifier(logistic)).fit(rows, train.targets)
        return np.asarray(fitted.predict_proba(held_out), np.float64)
    assert isinstance(task, Classification)
    fitted = make_pipeline(_preprocessing(rows), logistic).fit(rows, train.targets)
    answers = np.zeros((len(test), len(task.class_names)))
    answers[:, fitted.classes_] = fitted.predict_proba(held_out)
    return answers


def _frame(inputs: Inputs) -> Any:
    """A data frame with a column for each value of a row."""
    import pandas as pd

    columns: dict[str, NDArray[Any]] = {}
    for name, values in inputs.items():
        flat = values.reshape(len(values), -1)
        for number, column in enumerate(flat.T):
            columns[f"{name}_{number}"] = column if column.dtype == object else column.astype(np.float64)
    return pd.DataFrame(columns)


def _preprocessing(frame: Any) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    by_kind = _kinds(frame)
    numbers = [name for name, kind in by_kind.items() if kind == "number"]
    words = [name for name, kind in by_kind.items() if kind == "word"]
    scaled = make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler())
    one_hot = OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=_MAX_FEATURES)
    texts = [
        (name, TfidfVectorizer(max_features=_MAX_FEATURES), name) for name, kind in by_kind.items() if kind == "text"
    ]
    return ColumnTransformer([("numbers", scaled, numbers), ("words", one_hot, words), *texts])


def _kinds(frame: Any) -> Mapping[str, str]:
    return {name: "number" if frame[name].dtype.kind == "f" else _word_or_text(frame[name]) for name in frame}


def _word_or_text(column: Any) -> str:
    words = column.iloc[:1000].astype(str).str.count(r"\S+").mean()
    return "text" if words >= _TEXT_WORDS and column.nunique() > 0.1 * len(column) else "word"
