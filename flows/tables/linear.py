"""The linear model that the network begins with: logistic or ridge regression over what the encoder gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import KFold, StratifiedKFold

from flows.tables.encoder import Encoded, Encoder

_PENALTIES = (1.0, 0.1, 10.0, 100.0, 1000.0)
"""the first is kept unless another is clearly better"""
_MAX_ROWS = 100_000
_MAX_CV_ROWS = 20_000


def some_of(rows: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """As many of these rows as a linear model needs, in an order that means nothing."""
    return np.random.default_rng(seed).permutation(rows)[:_MAX_ROWS]


def design(encoder: Encoder, encoded: Encoded) -> Any:
    """Rows as a linear model takes them, [rows, numbers + categories + words], sparse where there are categories."""
    parts = [scipy.sparse.csr_array(encoded.numbers.astype(np.float64))]
    if encoder.category_columns:
        parts.append(_spread(encoded.categories, np.ones(encoded.categories.shape), encoder.categories))
    if encoder.text_words:
        parts.append(_spread(encoded.words, encoded.weights, encoder.words))
    joined = scipy.sparse.hstack(parts, format="csr")
    return joined.toarray() if joined.shape[1] <= 200 else joined


def _spread(columns: NDArray[np.int32], weights: NDArray[Any], width: int) -> Any:
    rows, each = columns.shape
    starts = np.arange(0, rows * each + 1, each)
    matrix = scipy.sparse.csr_array((weights.ravel().astype(np.float64), columns.ravel(), starts), (rows, width))
    matrix.sum_duplicates()
    return matrix


def fit_classifier(rows: Any, classes: NDArray[np.int64], count: int, seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Weights [features, classes] and bias [classes] of a logistic regression; classes without rows get a low bias."""

    def model(penalty: float) -> Any:
        solver = "newton-cholesky" if rows.shape[1] * count <= 400 and rows.shape[0] > 1000 else "lbfgs"
        return LogisticRegression(C=1 / penalty, solver=solver, max_iter=300)

    def losses(fitted: Any, held_out: Any, truth: NDArray[Any]) -> NDArray[np.float64]:
        found = np.full((len(truth), count), 1e-9)
        found[:, fitted.classes_] = fitted.predict_proba(held_out)
        return np.asarray(-np.log(np.maximum(found[np.arange(len(truth)), truth], 1e-9)))

    smallest = np.bincount(classes)[np.bincount(classes) > 0].min()
    folds = (
        StratifiedKFold(5, shuffle=True, random_state=seed)
        if smallest >= 5
        else KFold(5, shuffle=True, random_state=seed)
    )
    fitted = _best(model, losses, rows, classes, folds)
    weights, bias = np.zeros((rows.shape[1], count)), np.full(count, -12.0)
    present = fitted.classes_
    if len(present) == 2:
        bias[present] = [0.0, fitted.intercept_[0]]
        weights[:, present[1]] = fitted.coef_[0]
    else:
        bias[present] = fitted.intercept_
        weights[:, present] = fitted.coef_.T
    return weights, bias


def fit_regressor(rows: Any, targets: NDArray[np.float64], seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Weights [features, values] and bias [values] of a ridge regression."""

    def losses(fitted: Any, held_out: Any, truth: NDArray[Any]) -> NDArray[np.float64]:
        squares: NDArray[np.float64] = ((fitted.predict(held_out).reshape(truth.shape) - truth) ** 2).mean(axis=1)
        return squares

    folds = KFold(5, shuffle=True, random_state=seed)
    fitted = _best(lambda penalty: Ridge(penalty), losses, rows, targets, folds)
    return fitted.coef_.reshape(targets.shape[1], -1).T, np.reshape(fitted.intercept_, -1)


def _best(
    model: Callable[[float], Any],
    losses: Callable[[Any, Any, NDArray[Any]], NDArray[np.float64]],
    rows: Any,
    targets: NDArray[Any],
    folds: Any,
) -> Any:
    """The model with the penalty that does best on rows left out, fitted to all."""
    by_penalty = {penalty: np.zeros(min(len(targets), _MAX_CV_ROWS)) for penalty in _PENALTIES}
    some, their = rows[:_MAX_CV_ROWS], targets[:_MAX_CV_ROWS]
    for fit_on, judge_on in list(folds.split(some, their))[: 5 if len(their) < 5000 else 2]:
        if len(np.unique(their[fit_on])) < 2:
            continue
        for penalty, lost in by_penalty.items():
            lost[judge_on] = losses(model(penalty).fit(some[fit_on], their[fit_on]), some[judge_on], their[judge_on])
    penalty = _chosen(by_penalty)
    return model(penalty).fit(rows, targets)


def _chosen(by_penalty: dict[float, NDArray[np.float64]]) -> float:
    first, best = _PENALTIES[0], _PENALTIES[0]
    for penalty, lost in by_penalty.items():
        gained = by_penalty[first] - lost
        if gained.mean() > gained.std() / np.sqrt(len(gained)) and lost.mean() < by_penalty[best].mean():
            best = penalty
    return best
