"""
The version that is live, evaluated on the candidate's held-out rows.

Its published files are loaded, not asked over the server, so that the comparison does not depend on what runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flows.tasks import CannotEvaluate, Evaluation
from flows.training.dataset import Dataset
from flows.training.inspection import Inspection, inspect
from flows.training.predictor import Predictor, load_predictor
from flows.training.seen_rows import rows_seen
from serving.protocol.errors import HotswapError
from serving.repository.stamp import GoldenRows, Stamp


@dataclass(frozen=True, slots=True)
class GoldenAnswers:
    """The answers to the golden rows of the champion, [rows, …] each."""

    champion: NDArray[Any]
    """the answers that were kept when it was promoted"""
    candidate: NDArray[Any] | None
    """the candidate's answers; None where it does not answer these rows"""


@dataclass(frozen=True, slots=True)
class Champion:
    """The version that is live, evaluated now, from its published files."""

    version: int
    path: Path
    """the directory that the server serves"""
    inspection: Inspection | None
    """None where its graph cannot be read"""
    evaluation: Evaluation | None
    """None where it does not answer these rows"""
    golden: GoldenAnswers | None = None
    """None where none are kept with it"""
    notes: tuple[str, ...] = ()
    """what makes the comparison impossible, or less certain"""
    seen: NDArray[np.bool_] | None = None
    """bool [rows]: which held-out rows it was trained on; None where that is not known"""

    @property
    def unseen(self) -> NDArray[np.bool_]:
        """bool [rows]: which held-out rows it can be compared on."""
        assert self.evaluation is not None
        return np.ones(len(self.evaluation), bool) if self.seen is None else ~self.seen

    @property
    def comparable(self) -> Evaluation | None:
        """Its evaluation on the rows that it has not been trained on; None where there is none."""
        if self.evaluation is None or not self.unseen.any():
            return None
        return self.evaluation if self.unseen.all() else self.evaluation.of(self.unseen)


def evaluate_champion(
    path: Path, version: int, stamp: Stamp, candidate: Predictor, dataset: Dataset | None
) -> Champion:
    """
    Evaluate a published version now, on the held-out rows of `dataset`; its notes say what cannot be evaluated.

    Args:
        path: The directory that the server serves.
        version: Its number.
        stamp: What publish kept with it.
        candidate: The model that is to answer the champion's golden rows too.
        dataset: The data that the candidate was trained on; None where there is none to evaluate on.
    """
    notes = []
    inspection = evaluation = golden = None
    try:
        inspection = inspect(path)
        predictor = load_predictor(path)
        notes += _differing_golden_rows(predictor, stamp)
        if dataset is not None:
            evaluation = _evaluated(predictor, dataset)
    except HotswapError as exc:
        notes.append(f"it cannot be evaluated: {exc}")
    seen = None if dataset is None else rows_seen(path, dataset.test)
    if dataset is not None and seen is None and stamp.dataset_digest not in (None, dataset.digest):
        notes.append("it was trained on other data, which may hold some of these rows")
    if seen is not None and seen.any():
        notes.append(_left_out(seen))
    if stamp.golden is not None:
        golden = _answered_golden_rows(candidate, stamp.golden)
    return Champion(version, path, inspection, evaluation, golden, tuple(notes), seen)


def _evaluated(predictor: Predictor, dataset: Dataset) -> Evaluation:
    found = dataset.task.evaluate(dataset.test.targets, predictor.judged(predictor(dataset.test.inputs)))
    if not np.isfinite(found.scores).all():
        raise CannotEvaluate(dataset.task.fault(found.answers))
    return found


def _left_out(seen: NDArray[np.bool_]) -> str:
    left = int(np.count_nonzero(~seen))
    compared = f"compared on the other {left}" if left else "which leaves none to compare on"
    return f"it was trained on {np.count_nonzero(seen)} of the {len(seen)} held-out rows, {compared}"


def _differing_golden_rows(predictor: Predictor, stamp: Stamp) -> list[str]:
    if stamp.golden is None or stamp.golden.agree_with(predictor(stamp.golden.inputs)):
        return []
    return ["it answers its golden rows differently from when it was promoted"]


def _answered_golden_rows(candidate: Predictor, golden: GoldenRows) -> GoldenAnswers:
    champion = candidate.judged(golden.outputs)
    try:
        return GoldenAnswers(champion, candidate.judged(candidate(golden.inputs)))
    except CannotEvaluate:
        return GoldenAnswers(champion, None)
