"""
What clients have really asked, asked again of the candidate, and of the live version beside it.

A candidate must answer what is asked of the live version. How often it answers otherwise is told, and decides nothing:
a better model has to.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clients.client import PredictClient
from flows.data.rows import Inputs, count, taken
from flows.drift.logged import NoLog, logged_rows
from flows.settings import Settings
from flows.tasks import CannotEvaluate
from flows.training.candidate import Asked, Candidate
from flows.training.predictor import judged_name
from serving.protocol.errors import ServingError
from serving.repository.answers import ANSWER_TOLERANCE, Tensors

log = logging.getLogger(__name__)

Same = Callable[[NDArray[Any], NDArray[Any]], NDArray[np.bool_]]
"""Which of the rows two versions answer alike, as a client sees it."""


def _close(before: NDArray[Any], after: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether all that a row is answered with is the same but for rounding."""
    return np.asarray(np.isclose(before, after, atol=ANSWER_TOLERANCE).reshape(len(before), -1).all(axis=1))


@dataclass(frozen=True, slots=True)
class Replay:
    """Rows that clients have asked."""

    inputs: Inputs = field(default_factory=dict)
    """as the candidate takes them; none where there is nothing to replay"""
    same: Same = _close

    def __len__(self) -> int:
        return count(self.inputs)


def replay_of(settings: Settings, candidate: Asked) -> Replay:
    """The newest rows of the request log, as many as the settings say, that the candidate can be asked."""
    if not settings.sandbox_replay:
        return Replay()
    names = list(candidate.inputs)
    hashed = set(map(str.strip, settings.request_log_hash.split(",")))
    try:
        logged = logged_rows(
            settings.request_log_directory, candidate.recipe.name, names, max_rows=settings.sandbox_replay
        )
    except NoLog:
        return Replay()
    if not len(logged) or logged.inputs.keys() != set(names) or hashed & set(names):
        log.info("nothing is replayed: no row was logged with all that the model takes model=%s", candidate.recipe.name)
        return Replay()
    rows = taken(logged.inputs, slice(-settings.sandbox_replay, None))
    try:
        return Replay(candidate.predict.bind(rows), _same(candidate))
    except CannotEvaluate as exc:
        log.warning("logged rows are not replayed: %s", exc)
        return Replay()


def disagreement(replay: Replay, client: PredictClient, model: str, version: int, champion: int | None) -> float | None:
    """
    Ask the logged rows of the candidate, and of the live version where there is one.

    Returns:
        The share of the rows that they answer otherwise; None without a live version that answers them.

    Raises:
        ServingError: The candidate does not answer.
    """
    after = client.predict(model, replay.inputs, version=version).outputs
    if champion is None:
        return None
    try:
        before = client.predict(model, replay.inputs, version=champion).outputs
    except ServingError:  # it takes other inputs
        return None
    one, other = _judged(before), _judged(after)
    if one is None or other is None or one.shape != other.shape:
        return None
    return 1.0 - float(replay.same(one, other).mean())


def _judged(outputs: Tensors) -> NDArray[Any] | None:
    try:
        return outputs[judged_name(outputs)]
    except CannotEvaluate:
        return None


def _same(candidate: Asked) -> Same:
    if not isinstance(candidate, Candidate):
        return _close
    task = candidate.dataset.task
    return lambda before, after: task.same_answer(before, after, before)
