"""The rows that candidates are compared by: a part of the training rows, so that no held-out row chooses among them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from flows.data.ids import row_ids
from flows.data.rows import Rows
from flows.data.split import ByGroup, ByTime, Split
from flows.recipes import Recipe
from flows.tasks import Classification, Evaluation
from flows.training.dataset import Dataset, UnusableData, without_lone_classes

SHARE = 0.2
_IDS = 2.0**64
_SCATTER = np.uint64(0xC2B2AE3D27D4EB4F)  # odd, so that each id gets another; not the order of the recipe's own rows


def without_validation(recipe: Recipe, dataset: Dataset) -> tuple[Dataset, Rows]:
    """
    The data set without a fifth of its training rows, and these rows.

    They are the newest where the recipe splits by time, whole groups where it splits by group, and any others.

    Raises:
        UnusableData: There are too few, or they are a stream.
    """
    if dataset.stream is not None:
        raise UnusableData(f"The data of {recipe.name!r} is a stream: train one candidate, as no part is cut from it")
    rows = dataset.train
    chosen = _chosen(recipe.split, rows)
    if isinstance(dataset.task, Classification):
        chosen = without_lone_classes(rows, chosen)
    if not chosen.any() or chosen.all():
        raise UnusableData(f"The data of {recipe.name!r} is too small to compare candidates: train one")
    return replace(dataset, train=rows.take(~chosen)), rows.take(chosen)


def _chosen(split: Split, rows: Rows) -> NDArray[np.bool_]:
    if isinstance(split, ByTime):
        return replace(split, test_share=SHARE).held_out(rows)
    ids = row_ids({split.column: rows.columns[split.column]}) if isinstance(split, ByGroup) else rows.ids
    chosen: NDArray[np.bool_] = ids * _SCATTER < SHARE * _IDS
    return chosen


def score_name(evaluation: Evaluation) -> str:
    """What candidates are compared by: log loss, which few rows decide, or else the mean score of a row."""
    return "log_loss" if "log_loss" in evaluation.metrics else evaluation.task.score_name


def score(evaluation: Evaluation) -> float:
    """The same as a number; larger is better."""
    return -evaluation.metrics["log_loss"] if "log_loss" in evaluation.metrics else evaluation.score
