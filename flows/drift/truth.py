"""
How good the answers were, by a file that has come to know the truth.

Its rows are found in the log by an id that is one of the model's inputs, or by the inputs themselves. A row that was
asked several times counts once, with its last answer, so that the interval is not narrower than the rows allow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flows.data.ids import row_ids
from flows.data.rows import Inputs, taken
from flows.drift.columns import texts_of
from flows.drift.logged import Logged
from flows.drift.profile import Profile
from flows.tables.options import UnusableTable
from flows.tables.reading import read_table
from flows.tables.schema import Schema
from flows.tasks import Classification, Regression, Task

if TYPE_CHECKING:
    import pandas as pd

_CONFIDENCE = 0.95
_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Truth:
    """Where the truth stands."""

    file: Path
    """CSV or Parquet"""
    target: str
    """the column that the model predicts; empty: that of the table that it was trained on"""
    on: tuple[str, ...] = ()
    """the columns that identify a row; none: all inputs of the model"""


@dataclass(frozen=True, slots=True)
class LiveScore:
    """How good the answers to some rows were."""

    rows: int
    """of the file that were found in the log"""
    of: int
    """rows of the file"""
    name: str
    """of the metric that says most"""
    value: float
    low: float
    """of the interval that has the true value in 95 of 100 cases"""
    high: float
    metrics: Mapping[str, float]

    @property
    def sentence(self) -> str:
        return (
            f"live {self.name} {self.value:.4f}, 95 % interval {self.low:.4f} to {self.high:.4f}, "
            f"on {self.rows:,} of {self.of:,} rows whose truth is known"
        )


def live_score(truth: Truth, profile: Profile, logged: Logged, schema: Schema | None) -> LiveScore:
    """
    Hold the answers against the truth.

    Raises:
        UnusableTable: The file does not have what is needed, or none of its rows was logged.
    """
    frame = read_table(truth.file).frame
    if schema is not None:
        frame = frame.rename(columns={each.name: each.input for each in schema.columns})
        truth = replace(truth, target=truth.target or schema.target)
    if truth.target not in frame:
        missing = f"has no column {truth.target!r}" if truth.target else "comes without the name of its target"
        raise UnusableTable(f"{truth.file} {missing}: name the column that the model predicts by --target")
    frame = frame[frame[truth.target].notna()]
    asked = _flat(taken(logged.inputs, logged.answered), profile.feature_names)
    on = truth.on or tuple(each.name for each in profile.columns)
    known, seen = (
        row_ids(_keys(columns, on, asked, where)) for columns, where in ((frame, truth.file), (asked, "the log"))
    )
    known, first, counts = np.unique(known, return_index=True, return_counts=True)
    seen, last = np.unique(seen[::-1], return_index=True)
    _, at_known, at_seen = np.intersect1d(known[counts == 1], seen, assume_unique=True, return_indices=True)
    if not len(at_known):
        raise UnusableTable(
            f"No row of {truth.file} was logged with the same {', '.join(on[:4])}: name the columns that identify a "
            "row by --on, and see that the log keeps them"
        )
    answers = logged.outputs[profile.output][::-1][last[at_seen]]
    targets = frame[truth.target].iloc[first[counts == 1][at_known]]
    return _scored(*_judged(targets, truth, profile), answers, len(frame))


def _judged(column: pd.Series, truth: Truth, profile: Profile) -> tuple[Task, NDArray[Any]]:
    if profile.class_names:
        numbers = {name: number for number, name in enumerate(profile.class_names)}
        texts = [f"{value:.12g}" if isinstance(value, float) else str(value) for value in column]
        if unknown := sorted(set(texts) - numbers.keys()):
            raise UnusableTable(
                f"The target {truth.target!r} has {unknown[0]!r}, and the classes of the model are "
                f"{', '.join(profile.class_names)}"
            )
        return Classification(profile.class_names), np.array([numbers[text] for text in texts])
    if profile.task != Regression.name:
        raise UnusableTable(f"The answers of a task called {profile.task!r} can only be judged by its recipe")
    task = Regression((truth.target,))
    return task, task.targets(column.to_numpy(), truth.target)


def _scored(task: Task, targets: NDArray[Any], answers: NDArray[Any], of: int) -> LiveScore:
    from scipy.stats import binomtest, bootstrap

    metrics = dict(task.evaluate(targets, answers).metrics)
    rows = len(targets)
    if isinstance(task, Classification):
        right = round(metrics["accuracy"] * rows)
        interval = binomtest(right, rows).proportion_ci(_CONFIDENCE, method="wilson")
        return LiveScore(rows, of, "accuracy", right / rows, float(interval.low), float(interval.high), metrics)
    errors = np.abs(answers.reshape(rows, -1) - targets).mean(axis=1)
    low = high = float(errors.mean())
    if rows > 1:
        drawn = bootstrap((errors,), np.mean, n_resamples=_RESAMPLES, method="percentile", rng=0, batch=100)
        low, high = map(float, drawn.confidence_interval)
    return LiveScore(rows, of, "mae", float(errors.mean()), low, high, metrics)


def _flat(inputs: Inputs, feature_names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """A column [rows] for each value of a row, by the names that the profile has for them."""
    columns: dict[str, NDArray[Any]] = {}
    for name, array in inputs.items():
        flat = array.reshape(len(array), -1)
        names = [name] if flat.shape[1] == 1 else [f"{name}[{at}]" for at in range(flat.shape[1])]
        if len(feature_names) == flat.shape[1] > 1:
            names = list(feature_names)
        columns |= dict(zip(names, flat.T, strict=True))
    return columns


def _keys(columns: Any, on: Sequence[str], like: Inputs, where: object) -> Inputs:
    """What identifies a row, in the types of the log."""
    if missing := [name for name in on if name not in columns or name not in like]:
        raise UnusableTable(
            f"{where if missing[0] not in columns else 'the log'} has no column {missing[0]!r}: name the columns that "
            "identify a row by --on"
        )
    return {name: _as_logged(np.asarray(columns[name]), like[name], name) for name in on}


def _as_logged(values: NDArray[Any], like: NDArray[Any], name: str) -> NDArray[Any]:
    if like.dtype == object:
        return texts_of(np.array(["" if each is None or each != each else each for each in values], object))
    try:
        return values.astype(like.dtype)
    except (TypeError, ValueError) as exc:
        raise UnusableTable(f"The column {name!r} is not {like.dtype}, as it is in the log: {exc}") from exc
