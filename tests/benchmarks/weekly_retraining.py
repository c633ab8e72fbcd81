"""
Is a retraining on next week's data judged fairly?

Histories of a data set that grows every week, and of a tree that learns its training rows by heart. Each week's
candidate is held against last week's model by the test of the gate, on the rows that a split holds out: that of
`ByContent`, one drawn anew whenever rows are added, as hotswap's was once, and one whose share has changed, where the
rows that the champion has seen are left out. A second candidate, trained towards partly wrong targets, is worse; what
both are really worth is measured on rows that nobody else gets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.tree import DecisionTreeClassifier

from flows.data.ids import row_ids
from flows.data.rows import Rows
from flows.data.split import ByContent
from flows.gate.champion_checks import compare
from flows.gate.noninferiority import Verdict
from flows.recipes import Thresholds
from flows.tasks import Classification, Evaluation
from flows.training.champion import Champion
from tests.benchmarks.report import Measurement

_FIRST_ROWS, _ROWS_A_WEEK, _WEEKS = 500, 100, 8
_FRESH_ROWS = 4000
_WRONG_TARGETS = 0.6
_HISTORIES = 100
_TASK = Classification(("no", "yes"))

Held = Callable[[Rows, int], NDArray[np.bool_]]
"""Rows and the number of the week to bool [rows]: which are held out."""


def drawn_anew(rows: Rows, week: int) -> NDArray[np.bool_]:
    """A fifth, by a fixed seed over the positions of the rows: another fifth as soon as there are more rows."""
    held_out = np.zeros(len(rows), bool)
    held_out[np.random.default_rng(42).permutation(len(rows))[: len(rows) // 5]] = True
    return held_out


def by_content(rows: Rows, week: int) -> NDArray[np.bool_]:
    return ByContent(0.2).held_out(rows)


def by_content_with_another_share(rows: Rows, week: int) -> NDArray[np.bool_]:
    """A fifth at first, then two fifths, of which last week's model has seen half."""
    return ByContent(0.2 if week % 2 == 0 else 0.4).held_out(rows)


SPLITS: Mapping[str, tuple[Held, bool]] = {
    "split by content": (by_content, False),
    "share changed, seen rows left out": (by_content_with_another_share, True),
    "split drawn anew": (drawn_anew, False),
    "split drawn anew, seen rows left out": (drawn_anew, True),
}
"""how rows are held out, and whether those that the champion has seen are left out"""


@dataclass(frozen=True, slots=True)
class Judged:
    """One comparison of the gate, and what the candidate is really worth beside the champion."""

    verdict: Verdict
    is_retraining: bool
    """whether it was trained as the champion was, on more rows"""
    margin: float
    true_difference: float

    @property
    def is_worse(self) -> bool:
        return self.true_difference < -self.margin


@dataclass(frozen=True, slots=True)
class Rates:
    """Shares of the comparisons."""

    false_rejections: float
    """of candidates that are not worse by more than the margin: rejected"""
    held_up: float
    """of retrainings that are not: rejected or inconclusive"""
    false_promotions: float
    """of candidates that are: passed"""


def simulate(split: str, histories: int = _HISTORIES) -> Rates:
    """The rates over so many histories of some weeks."""
    held, leave_out = SPLITS[split]
    judged = [each for seed in range(histories) for each in _history(held, leave_out, seed)]
    fine = [each.verdict for each in judged if not each.is_worse]
    again = [each.verdict for each in judged if not each.is_worse and each.is_retraining]
    worse = [each.verdict for each in judged if each.is_worse]
    return Rates(_share(fine, Verdict.REJECTED), 1 - _share(again, Verdict.PASSED), _share(worse, Verdict.PASSED))


def _share(verdicts: list[Verdict], of: Verdict) -> float:
    return sum(each is of for each in verdicts) / len(verdicts)


def _history(held: Held, leave_out: bool, seed: int) -> Iterator[Judged]:
    random = np.random.default_rng(seed)
    fresh, rows = _drawn(random, _FRESH_ROWS), _drawn(random, _FIRST_ROWS)
    live = _fitted(rows.take(~held(rows, 0)), seed)
    seen = rows.ids[~held(rows, 0)]
    for week in range(1, _WEEKS + 1):
        rows = _together(rows, _drawn(random, _ROWS_A_WEEK))
        held_out = held(rows, week)
        train, test = rows.take(~held_out), rows.take(held_out)
        as_before = _fitted(train, seed + week)
        champion = Champion(
            1, Path(), None, _evaluated(live, test), seen=np.isin(test.ids, seen) if leave_out else None
        )
        worth = _worth(live, fresh)
        for candidate in (as_before, _fitted(_spoiled(train, random), seed + week)):
            found = compare(_evaluated(candidate, test), champion, Thresholds())
            assert found is not None
            yield Judged(found.verdict, candidate is as_before, found.margin, _worth(candidate, fresh) - worth)
        live, seen = as_before, train.ids


def _drawn(random: np.random.Generator, count: int) -> Rows:
    """Rows whose targets follow a rule in eight of ten cases."""
    values = random.normal(size=(count, 6)).astype(np.float32)
    chance = 1 / (1 + np.exp(-3 * (values[:, 0] + values[:, 1] * values[:, 2])))
    inputs = {"input": values}
    return Rows(inputs, (random.random(count) < chance).astype(np.int64), row_ids(inputs))


def _together(rows: Rows, more: Rows) -> Rows:
    inputs = {"input": np.concatenate([rows.inputs["input"], more.inputs["input"]])}
    return Rows(inputs, np.concatenate([rows.targets, more.targets]), np.concatenate([rows.ids, more.ids]))


def _spoiled(rows: Rows, random: np.random.Generator) -> Rows:
    """The same with targets of which a part is drawn by lot."""
    lot = random.random(len(rows)) < _WRONG_TARGETS
    return replace(rows, targets=np.where(lot, random.integers(0, 2, len(rows)), rows.targets))


def _fitted(rows: Rows, seed: int) -> Any:
    return DecisionTreeClassifier(random_state=seed).fit(rows.examples, rows.targets)


def _evaluated(model: Any, rows: Rows) -> Evaluation:
    answers = model.predict_proba(rows.examples)
    return Evaluation(_TASK, rows.targets, answers, _TASK.scores(rows.targets, answers), {})


def _worth(model: Any, fresh: Rows) -> float:
    """Accuracy on rows that no split has."""
    return float(model.score(fresh.examples, fresh.targets))


def measure() -> list[Measurement]:
    """The rates by split; what is asked of the first two is what the gate promises."""
    found = []
    for split, (_, leave_out) in SPLITS.items():
        rates, level = simulate(split), 5.0 if leave_out or split == "split by content" else None
        name = f"{split}, {_HISTORIES} histories of {_WEEKS} weeks"
        found += [
            Measurement(f"{name}: falsely rejected", 100 * rates.false_rejections, "%", at_most=level),
            Measurement(f"{name}: retrainings held up", 100 * rates.held_up, "%"),
            Measurement(f"{name}: falsely promoted", 100 * rates.false_promotions, "%", at_most=level),
        ]
    return found
