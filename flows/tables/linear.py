"""The linear model that the network begins with: logistic or ridge regression over what the encoder gives."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import KFold, ShuffleSplit

from flows.tables.encoder import Encoded, Encoder

_PENALTIES = (1.0, 10.0, 100.0, 1000.0, 0.1)
"""the first is kept unless another is clearly better"""
_MAX_ROWS = 100_000
_MAX_CV_ROWS = 10_000
_FOLDS, _MANY_ROWS = 5, 4000
_MAX_DENSE, _MAX_NEWTON = 200, 400
_ITERATIONS = 60
"""enough to begin with; what is left the deep part learns"""
_LOW_BIAS = -12.0
"""of a class that no row has"""


@dataclass(frozen=True, slots=True)
class Linear:
    """A fitted linear model."""

    weights: NDArray[np.float64]
    """[features, outputs]"""
    bias: NDArray[np.float64]
    """[outputs]"""
    penalty: float
    fitted: Any
    """scikit-learn's"""


def design(encoder: Encoder, encoded: Encoded) -> Any:
    """Rows as a linear model takes them, [rows, numbers + categories + words], sparse where these are many."""
    parts = [scipy.sparse.csr_array(encoded.numbers.astype(np.float64))]
    if encoder.category_columns:
        parts.append(_spread(encoded.categories, np.ones(encoded.categories.shape), encoder.categories))
    if encoder.text_words:
        parts.append(_spread(encoded.words, encoded.weights, encoder.words))
    joined = scipy.sparse.hstack(parts, format="csr")
    return joined.toarray() if joined.shape[1] <= _MAX_DENSE else joined


def _spread(columns: NDArray[np.int32], weights: NDArray[Any], width: int) -> Any:
    rows, each = columns.shape
    starts = np.arange(0, rows * each + 1, each)
    matrix = scipy.sparse.csr_array((weights.ravel().astype(np.float64), columns.ravel(), starts), (rows, width))
    matrix.sum_duplicates()
    return matrix


def fit_linear(
    encoder: Encoder, encoded: Encoded, values: NDArray[Any], classes: int, seed: int, before: Linear | None = None
) -> Linear:
    """
    Fit a logistic regression, or a ridge regression where there are no classes; large data gives a part of its rows.

    Args:
        values: int64 [rows] classes, or float64 [rows, 1].
        before: One of other rows of the same data, whose penalty is taken over.
    """
    some = np.random.default_rng(seed).permutation(len(encoded))[:_MAX_ROWS]
    rows, values = design(encoder, encoded.take(some)), values[some]
    family = _Logistic(classes) if classes else _Ridge()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # near enough to begin with
        penalty = _penalty(family, rows, values, seed) if before is None else before.penalty
        fitted = family.fit(rows, values, penalty, before.fitted if before else None)
    return Linear(*family.weights(fitted), penalty, fitted)


class _Logistic:
    def __init__(self, classes: int) -> None:
        self._classes = classes

    def fit(self, rows: Any, values: NDArray[Any], penalty: float, before: Any = None) -> Any:
        is_small = rows.shape[1] * self._classes <= _MAX_NEWTON and rows.shape[0] > rows.shape[1]
        solver = "newton-cholesky" if is_small and not scipy.sparse.issparse(rows) else "lbfgs"
        model = LogisticRegression(C=1 / penalty, solver=solver, max_iter=_ITERATIONS, warm_start=True)
        if before is not None and np.array_equal(before.classes_, np.unique(values)):
            model.coef_, model.intercept_ = before.coef_.copy(), before.intercept_.copy()
            model.classes_ = before.classes_
        return model.fit(rows, values)

    def losses(self, fitted: Any, rows: Any, truth: NDArray[Any]) -> NDArray[np.float64]:
        found = np.full((len(truth), self._classes), 1e-9)
        found[:, fitted.classes_] = fitted.predict_proba(rows)
        return np.asarray(-np.log(np.maximum(found[np.arange(len(truth)), truth], 1e-9)))

    def weights(self, fitted: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        present = fitted.classes_
        weights, bias = np.zeros((fitted.coef_.shape[1], self._classes)), np.full(self._classes, _LOW_BIAS)
        if len(present) == 2:
            bias[present] = [0.0, fitted.intercept_[0]]
            weights[:, present[1]] = fitted.coef_[0]
        else:
            bias[present], weights[:, present] = fitted.intercept_, fitted.coef_.T
        return weights, bias


class _Ridge:
    def fit(self, rows: Any, values: NDArray[Any], penalty: float, before: Any = None) -> Any:
        return Ridge(penalty).fit(rows, values)

    def losses(self, fitted: Any, rows: Any, truth: NDArray[Any]) -> NDArray[np.float64]:
        return np.asarray(((fitted.predict(rows).reshape(truth.shape) - truth) ** 2).mean(axis=1))

    def weights(self, fitted: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        bias = np.reshape(fitted.intercept_, -1)
        return fitted.coef_.reshape(len(bias), -1).T, bias


def _penalty(family: _Logistic | _Ridge, rows: Any, values: NDArray[Any], seed: int) -> float:
    """The one that does best on rows left out: the first, unless another is better by more than chance gives."""
    rows, values = rows[:_MAX_CV_ROWS], values[:_MAX_CV_ROWS]
    few = len(values) < _MANY_ROWS
    folds: Any = KFold(_FOLDS, shuffle=True, random_state=seed) if few else ShuffleSplit(1, random_state=seed)
    lost: dict[float, list[NDArray[np.float64]]] = {penalty: [] for penalty in _PENALTIES}
    for fit_on, judge_on in folds.split(values):
        if len(np.unique(values[fit_on])) < 2:
            continue
        fitted = None
        for penalty, losses in lost.items():
            fitted = family.fit(rows[fit_on], values[fit_on], penalty, fitted)
            losses.append(family.losses(fitted, rows[judge_on], values[judge_on]))
    return _chosen({penalty: np.concatenate([*losses, np.zeros(1)]) for penalty, losses in lost.items()})


def _chosen(lost: dict[float, NDArray[np.float64]]) -> float:
    first = best = _PENALTIES[0]
    for penalty, losses in lost.items():
        gained = lost[first] - losses
        if gained.mean() > gained.std() / np.sqrt(len(gained)) and losses.mean() < lost[best].mean():
            best = penalty
    return best
