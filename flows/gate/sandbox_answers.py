"""
Checks that a served candidate answers held-out rows as it was judged, whatever rows are asked together.

A model that looks at all rows of a request answers otherwise when a batch is cut differently, or when rows are asked
one at a time after they were judged together.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clients.client import PredictClient
from flows.training.candidate import Candidate
from flows.training.champion import Champion
from serving.protocol.errors import HotswapError
from serving.repository.stamp import ANSWER_TOLERANCE

_MAX_ROWS = 512
_SINGLE_ROWS = 12
_BATCH_SIZES = (2, 3, 7, 31)
_SECONDS_PER_PROTOCOL = 1.0


class Unfit(HotswapError):
    """The candidate failed a check."""

    def __init__(self, measured: str, why: str) -> None:
        super().__init__(why)
        self.measured = measured


@dataclass(frozen=True, slots=True)
class Trial:
    """What is tried: the files, the rows that are asked, and what the judged model answers to them."""

    model: str
    version: int
    """a number for the sandbox alone, above the champion's"""
    saved_model: Path
    rows: NDArray[np.float32]
    """float32 [rows, features]"""
    answers: NDArray[np.float32]
    """float32 [rows, classes]"""
    champion: tuple[int, Path] | None = None
    """number and files of the live version, which is served beside it"""
    rows_independent: bool = True
    """whether the answer to a row must be the same whatever rows are asked with it"""

    @classmethod
    def of(cls, candidate: Candidate, champion: Champion | None) -> Trial:
        """The trial of a candidate beside the live version."""
        rows = _chosen_rows(len(candidate.dataset.test))
        return cls(
            candidate.recipe.name,
            (champion.version if champion else 0) + 1,
            candidate.saved_model,
            candidate.dataset.test.examples[rows],
            candidate.answers(rows),
            (champion.version, champion.path) if champion else None,
            candidate.recipe.rows_independent,
        )


def _chosen_rows(count: int) -> NDArray[np.int64]:
    """Which of so many held-out rows are asked: from first to last, at equal distances."""
    return np.linspace(0, count - 1, min(_MAX_ROWS, count)).astype(np.int64)


def check_answers(trial: Trial, client: PredictClient) -> tuple[str, str]:
    """Hold the answers to real rows against those of the model that was judged."""
    outputs = client.predict(trial.model, trial.rows, version=trial.version).outputs
    if "output" not in outputs:
        raise Unfit(", ".join(outputs) or "nothing", "it has no output called 'output'")
    answer = np.asarray(outputs["output"], np.float32)
    if answer.shape != trial.answers.shape:
        shapes = f"{list(answer.shape)}", f"{list(trial.answers.shape)}"
        raise Unfit(shapes[0], f"{len(trial.rows)} rows are answered by shape {shapes[0]} instead of {shapes[1]}")
    if not np.isfinite(answer).all():
        share = 1 - np.isfinite(answer).all(axis=tuple(range(1, answer.ndim))).mean()
        raise Unfit(f"{share:.1%} not finite", f"NaN or infinite values in {share:.1%} of the answers")
    difference = float(abs(answer - trial.answers).max())
    if not difference <= ANSWER_TOLERANCE:
        if trial.rows_independent:
            _difference(trial, client, np.arange(1), answer)
        raise Unfit(f"off by {difference:.1e}", f"answers differ from those that were judged by {difference:.1e}")
    return f"off by {difference:.1e}", f"{len(trial.rows)} held-out rows are answered as they were judged"


def check_rows_apart(trial: Trial, *clients: PredictClient) -> tuple[str, str]:
    """
    Ask some rows one at a time, in batches of several sizes, and shuffled.

    Returns:
        What was measured, and what that says.

    Raises:
        Unfit: An answer depends on the rows that were asked with it.
    """
    if not trial.rows_independent:
        return "not asked", "the recipe lets the answer to a row depend on the others (rows_independent=False)"
    asked, worst = 0, 0.0
    for client in clients:
        deadline = time.monotonic() + _SECONDS_PER_PROTOCOL
        for rows in _neighbourhoods(len(trial.rows)):
            worst = max(worst, _difference(trial, client, rows, trial.answers))
            asked += 1
            if time.monotonic() > deadline:
                break
    return (
        f"off by {worst:.1e}",
        f"held-out rows are answered the same alone, in batches and shuffled: {asked} requests",
    )


def _neighbourhoods(count: int) -> Iterator[NDArray[np.int64]]:
    """The numbers of rows to ask together, the most telling first."""
    shuffled = np.random.default_rng(count).permutation(count)
    yield shuffled[:1]
    yield shuffled[: max(_BATCH_SIZES)]
    yield np.repeat(shuffled[:1], 3)
    start = 0
    for size in _BATCH_SIZES:
        yield np.take(shuffled, range(start, start + size), mode="wrap")
        start += size
    for row in shuffled[1:_SINGLE_ROWS]:
        yield np.array([row])
    yield shuffled


def _difference(trial: Trial, client: PredictClient, rows: NDArray[np.int64], answers: NDArray[np.float32]) -> float:
    """By how much the answers to these rows, asked together, differ from those to all rows."""
    outputs = client.predict(trial.model, trial.rows[rows], version=trial.version).outputs
    answer, expected = np.asarray(outputs["output"], np.float32), answers[rows]
    why = "give each row the answer that it gets alone, or let the recipe say Recipe(…, rows_independent=False)"
    if answer.shape != expected.shape:
        shapes = f"{list(answer.shape)} instead of {list(expected.shape)}"
        raise Unfit(shapes, f"{len(rows)} rows asked together are answered by shape {shapes}: {why}")
    difference = float(abs(answer - expected).max())
    if not difference <= ANSWER_TOLERANCE:
        together = "asked alone" if len(rows) == 1 else f"asked in a batch of {len(rows)}"
        raise Unfit(
            f"off by {difference:.1e}",
            f"its answer to a row depends on the rows that are asked with it, {together} it differs by "
            f"{difference:.1e}: {why}",
        )
    return difference
