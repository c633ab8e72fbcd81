"""Counts the runs that train or promote a model: what they came to, and how long they took."""

from __future__ import annotations

from collections.abc import Mapping

from flows.settings import Settings
from flows.tallies import Tally

VERDICTS, SECONDS, STEP_SECONDS, ENDED_AT = "verdicts", "training_seconds", "step_seconds", "training_ended_at"
EVERY_VERDICT = ("passed", "rejected", "inconclusive", "sandbox rejected", "failed")
BOUNDS_SECONDS = (1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 43200.0)
TRAIN = "train"
"""the step that a run without a training does not have"""


def count_run(settings: Settings, model: str, verdict: str, steps: Mapping[str, float], ended_at: float) -> None:
    """
    Count one run.

    Args:
        settings: Of its home.
        model: The model's name.
        verdict: ``passed``, ``rejected``, …; ``failed`` for a run that came to none.
        steps: The seconds of each of its steps.
        ended_at: When it ended, in seconds since the epoch.
    """
    tally = Tally(settings.home)
    tally.count(VERDICTS, model, verdict)
    if TRAIN in steps:
        tally.observe(SECONDS, sum(steps.values()), BOUNDS_SECONDS, model)
        tally.note(STEP_SECONDS, dict(steps), model)
        tally.note(ENDED_AT, ended_at, model)
