"""
Which settings are tried next, by Optuna.

They are drawn in groups, and a group is finished before the next one is drawn, so that the same seed tries the same
settings however many cores there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna

from flows.recipes.tuning import Between, OneOf, Space

GROUP = 4

Settings = dict[str, Any]
Try = Callable[[Sequence[Settings]], Sequence[float | None]]
"""Scores of some settings, larger is better; None where the training failed"""


def search(space: Space, current: Mapping[str, Any], trials: int, seed: int, try_settings: Try) -> None:
    """
    Try settings, first those that the recipe has.

    Args:
        space: What is searched.
        current: The recipe's own settings.
        trials: How many settings are tried.
        seed: Of the choice.
        try_settings: Is called with each group.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    study.enqueue_trial({name: value for name, value in current.items() if name in space})
    distributions = {name: _distribution(each) for name, each in space.items()}
    for first in range(0, trials, GROUP):
        group = [study.ask(distributions) for _ in range(min(GROUP, trials - first))]
        for trial, score in zip(group, try_settings([trial.params for trial in group]), strict=True):
            if score is None:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                study.tell(trial, score)


def _distribution(each: Between | OneOf) -> Any:
    if isinstance(each, OneOf):
        return optuna.distributions.CategoricalDistribution(each.values)
    if isinstance(each.low, int) and isinstance(each.high, int):
        return optuna.distributions.IntDistribution(each.low, each.high, log=each.log)
    return optuna.distributions.FloatDistribution(each.low, each.high, log=each.log)
