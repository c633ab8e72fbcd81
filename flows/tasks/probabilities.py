"""What is measured of probabilities: how well they rank, and how far they can be trusted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SUM_TOLERANCE = 1e-3
_BINS = 10


def are_shares(probabilities: NDArray[np.floating]) -> bool:
    """Whether all of them are from 0 to 1."""
    return bool(((probabilities >= -SUM_TOLERANCE) & (probabilities <= 1 + SUM_TOLERANCE)).all())


def ranking_metrics(truth: NDArray[np.bool_], probabilities: NDArray[np.floating]) -> dict[str, float]:
    """
    Areas under the ROC and the precision-recall curve, as means over the columns in which both outcomes occur.

    Args:
        truth: bool [rows, columns]
        probabilities: [rows, columns], of the truth
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    defined = truth.any(axis=0) & ~truth.all(axis=0)
    if not defined.any():
        return {}
    columns = truth[:, defined], probabilities[:, defined]
    return {"roc_auc": float(roc_auc_score(*columns)), "pr_auc": float(average_precision_score(*columns))}


def calibration_error(confidence: NDArray[np.floating], right: NDArray[np.bool_]) -> float:
    """
    Expected calibration error: how far confidence is from the share that is right, the mean of ten equal bins.

    Source: Guo et al. (2017), On Calibration of Modern Neural Networks, equation 5.
    """
    bins = np.clip((confidence * _BINS).astype(np.int64), 0, _BINS - 1)
    excess = np.bincount(bins, weights=confidence - right, minlength=_BINS)
    return float(np.abs(excess).sum() / len(right))


def placements(truth: NDArray[np.bool_], values: NDArray[np.floating]) -> NDArray[np.float64]:
    """
    Per row its part of the area under the ROC curve, so that the mean over the rows is the area.

    A row of the truth counts by the share of the other rows that it is ranked above, any other row by the share of
    those of the truth that it is ranked below.

    Source: DeLong et al. (1988), Biometrics 44, 837-845, whose variance of the area is that of these.
    """
    from scipy.stats import rankdata

    rows, positive = len(truth), int(truth.sum())
    negative = rows - positive
    area = np.empty(rows)
    ranks = rankdata(values)
    area[truth] = (ranks[truth] - rankdata(values[truth])) / negative
    area[~truth] = 1 - (ranks[~truth] - rankdata(values[~truth])) / positive
    mean = float(area[truth].mean())
    weights = np.where(truth, rows / positive, rows / negative)
    return mean + (area - mean) * weights


def unrelated(truth: NDArray[np.bool_], probabilities: NDArray[np.floating]) -> float:
    """
    The p-value of no column [rows] of probabilities being higher where it is true, by Mann and Whitney's test of each.

    Of several columns the best decides, at a level divided by their number.
    """
    from scipy.stats import mannwhitneyu

    defined = truth.any(axis=0) & ~truth.all(axis=0)
    values = [
        float(mannwhitneyu(column[true], column[~true], alternative="greater").pvalue)
        for true, column in zip(truth.T[defined], probabilities.T[defined], strict=True)
    ]
    return min([1.0, *(value * len(values) for value in values)])
