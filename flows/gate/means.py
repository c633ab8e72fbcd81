"""
Bounds of the mean difference between the scores that two models have on the same rows.

Scores may be skewed, have heavy tails, or be equal for most rows, so the rows that were drawn may hold no trace of what
is rare: a model that fails badly on one row in a hundred looks perfect on thirty. The bounds are those of the Bayesian
bootstrap, rows weighted by Dirichlet(1, …, 1), with one further row that has *the worst difference that the scores
allow*: between the best and the worst score that either model has anywhere. Where every score is 0 or 1 and nothing is
lost, that is the exact bound of Clopper and Pearson; with many rows it is that of the normal distribution.

The weighted mean is below t where a sum of independent exponentials, each times its row's distance from t, is below 0.
Its distribution is computed by a saddlepoint instead of drawn, so that the bounds are the same at every run.

Sources:
    Gaffke (2005), Three test statistics for a nonparametric one-sided hypothesis on the mean of a nonnegative variable,
    Mathematical Methods of Statistics 14, 451-467: the bound.
    Learned-Miller and Thomas (2020), A New Confidence Interval for the Mean of a Bounded Random Variable: its coverage.
    Lugannani and Rice (1980), Advances in Applied Probability 12, 475-490: the tail by a saddlepoint.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

_NEAR_THE_MEAN = -0.05  # in standard deviations; nearer, the tail's formula divides by nothing
_MAX_TIMES = 1e6


@dataclass(frozen=True, slots=True, eq=False)
class MeanDifferences:
    """The candidate's scores less the champion's: values in order, and how many rows have each."""

    values: NDArray[np.float64]
    counts: NDArray[np.float64]
    worst: float
    """the largest distance between two scores of either model, above 0"""

    @classmethod
    def between(cls, candidate: NDArray[np.float64], champion: NDArray[np.float64]) -> MeanDifferences:
        """Of finite scores [rows] of both models."""
        values, counts = np.unique(candidate - champion, return_counts=True)
        worst = max(candidate.max(), champion.max()) - min(candidate.min(), champion.min())
        return cls(values, counts.astype(np.float64), float(worst) or 1.0)

    @property
    def rows(self) -> int:
        return int(self.counts.sum())

    @property
    def mean(self) -> float:
        return float(self.values @ self.counts / self.counts.sum())

    @property
    def turned(self) -> MeanDifferences:
        """The same, seen from the champion."""
        return MeanDifferences(-self.values[::-1], self.counts[::-1], self.worst)

    def lower_bound(self, confidence: float) -> float:
        """The mean difference that only `1 - confidence` of the reweighted means are below."""
        values, counts = np.append(-self.worst, self.values), np.append(1.0, self.counts)
        low, spread = float(values.min()), float(np.ptp(values))
        if spread == 0:
            return low
        tails = _WeightedMeans((values - low) / spread, counts)
        tilt = brentq(lambda log_tilt: math.log(tails.below(math.exp(log_tilt)) / (1 - confidence)), -30, 30, xtol=1e-6)
        return low + spread * tails.mean(math.exp(tilt))

    def decidable_margin(self, confidence: float, power: float, times: float = 1.0) -> float:
        """
        The margin at which models that are equal and differ as much as these would pass so often.

        Args:
            confidence: Of the lower bound.
            power: How often they would pass, as a share.
            times: As many rows, times this.
        """
        centred = MeanDifferences(self.values - self.mean, self.counts * times, self.worst)
        # A further row that differs by half the worst: without it, skewed gains would be decided in 7 of 10 cases only.
        squares = float(np.square(centred.values) @ centred.counts) + (self.worst / 2) ** 2
        deviation = math.sqrt(squares) / (self.rows * times)
        return float(ndtri(power)) * deviation - centred.lower_bound(confidence)

    def rows_to_decide(self, margin: float, confidence: float, power: float) -> int | None:
        """How many rows decide with that power, if they differ as these; None where a million times were not enough."""
        distance = abs(self.mean + margin)

        def excess(log_times: float) -> float:
            return self.decidable_margin(confidence, power, math.exp(log_times)) - distance

        if excess(math.log(_MAX_TIMES)) > 0:
            return None
        if excess(0.0) <= 0:
            return self.rows + 1
        return math.ceil(self.rows * math.exp(brentq(excess, 0.0, math.log(_MAX_TIMES), xtol=0.02)))


@dataclass(frozen=True, slots=True, eq=False)
class _WeightedMeans:
    """Means of values from 0 to 1 under Dirichlet weights; a mean is named by the tilt that makes it the likeliest."""

    values: NDArray[np.float64]
    counts: NDArray[np.float64]

    def mean(self, tilt: float) -> float:
        weights = self.counts / (1 + tilt * self.values)
        return float(weights @ self.values / weights.sum())

    def below(self, tilt: float) -> float:
        """The probability of a mean below `mean(tilt)`, which falls from about one half as the tilt grows."""
        mean = self.mean(tilt)
        scale = 1 / (1 + tilt * mean)
        relative = scale * (1 + tilt * self.values)
        root = -math.sqrt(max(0.0, 2 * float(self.counts @ np.log(relative))))
        if root > _NEAR_THE_MEAN:
            return 0.5
        second = float(self.counts @ np.square((self.values - mean) / relative))
        density = math.exp(-root * root / 2) / math.sqrt(2 * math.pi)
        tail = float(ndtr(root)) + density * (1 / root + 1 / (tilt * scale * math.sqrt(second)))
        return max(tail, 1e-300)
