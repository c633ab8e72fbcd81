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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clients.client import PredictClient
from flows.data.rows import count, taken
from flows.gate.replay import Replay
from flows.training.candidate import Asked
from flows.training.champion import Champion
from serving.protocol.errors import HotswapError
from serving.repository.answers import ANSWER_TOLERANCE, OtherAnswer, Tensors, largest_difference

_MAX_ROWS, _MAX_BYTES = 512, 1 << 21
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
    inputs: Tensors
    """the rows, by input"""
    answers: Tensors
    """by output"""
    champion: tuple[int, Path] | None = None
    """number and files of the live version, which is served beside it"""
    rows_independent: bool = True
    """whether the answer to a row must be the same whatever rows are asked with it"""
    replay: Replay = Replay()
    """rows that clients have asked"""

    @classmethod
    def of(cls, candidate: Asked, champion: Champion | None, replay: Replay = Replay()) -> Trial:  # noqa: B008
        """The trial of a candidate beside the live version."""
        rows = _chosen_rows(candidate.inputs)
        return cls(
            candidate.recipe.name,
            (champion.version if champion else 0) + 1,
            candidate.saved_model,
            taken(candidate.inputs, rows),
            candidate.answers(rows),
            (champion.version, champion.path) if champion else None,
            candidate.recipe.rows_independent,
            replay,
        )

    def __len__(self) -> int:
        return count(self.inputs)

    def asked(self, rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """The inputs of a request for these rows, by number."""
        return taken(self.inputs, rows)


def _chosen_rows(inputs: Tensors) -> NDArray[np.int64]:
    """Which of the held-out rows are asked: from first to last, at equal distances."""
    rows, size = count(inputs), sum(array.nbytes for array in inputs.values())
    most = max(1, _MAX_BYTES * rows // max(1, size))
    return np.linspace(0, rows - 1, min(_MAX_ROWS, rows, most)).astype(np.int64)


def check_answers(trial: Trial, client: PredictClient) -> tuple[str, str]:
    """Hold the answers to real rows against those of the model that was judged."""
    outputs = client.predict(trial.model, trial.inputs, version=trial.version).outputs
    _check_finite(outputs)
    try:
        difference = largest_difference(trial.answers, outputs)
    except OtherAnswer as exc:
        raise Unfit("another answer", f"the server does not answer as was judged: {exc}") from exc
    if not difference <= ANSWER_TOLERANCE:
        if trial.rows_independent:
            _difference(trial, client, np.arange(1), outputs)
        raise Unfit(f"off by {difference:.1e}", f"answers differ from those that were judged by {difference:.1e}")
    return f"off by {difference:.1e}", f"{len(trial)} held-out rows are answered as they were judged"


def _check_finite(outputs: Tensors) -> None:
    for array in outputs.values():
        if array.dtype.kind != "f" or np.isfinite(array).all():
            continue
        share = 1 - np.isfinite(array).all(axis=tuple(range(1, array.ndim))).mean()
        raise Unfit(f"{share:.1%} not finite", f"NaN or infinite values in {share:.1%} of the answers")


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
        for rows in _neighbourhoods(len(trial)):
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


def _difference(trial: Trial, client: PredictClient, rows: NDArray[np.int64], answers: Tensors) -> float:
    """By how much the answers to these rows, asked together, differ from those to all rows."""
    given = client.predict(trial.model, trial.asked(rows), version=trial.version).outputs
    why = "give each row the answer that it gets alone, or let the recipe say Recipe(…, rows_independent=False)"
    try:
        difference = largest_difference(taken(answers, rows), given)
    except OtherAnswer as exc:
        raise Unfit("another answer", f"{len(rows)} rows asked together are answered otherwise: {exc}: {why}") from exc
    if not difference <= ANSWER_TOLERANCE:
        together = "asked alone" if len(rows) == 1 else f"asked in a batch of {len(rows)}"
        raise Unfit(
            f"off by {difference:.1e}",
            f"its answer to a row depends on the rows that are asked with it, {together} it differs by "
            f"{difference:.1e}: {why}",
        )
    return difference
