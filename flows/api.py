"""
hotswap from Python, as in a notebook: ``from flows import train, promote, rollback, status``.

Each function does what the command of its name does, and returns what that prints. It works where an event loop runs,
and leaves the environment, the logs and the working directory as they were.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Unpack

from flows.console import progress
from flows.local.interrupts import defer_sigint
from flows.parameters import (
    JudgingRecipe,
    PromoteParameters,
    RecipeName,
    TrainParameters,
    documented,
    plain,
    spelled_out,
)
from flows.settings import Settings, apply_environment, load_settings

if TYPE_CHECKING:
    from flows.promotion.change import Change
    from flows.promotion_run import TrainOutcome
    from flows.reports.status import Overview


@plain
@documented
@spelled_out
def train(recipe: RecipeName = "iris", **parameters: Unpack[TrainParameters]) -> TrainOutcome:
    """
    Train a recipe, judge it, record it, and promote what passes the gate, as `hotswap train` does.

    Returns:
        What it came to: a candidate that does not pass is an outcome whose `decision` and `reason` say so.

    Raises:
        HotswapError: It failed; nothing of what was live has changed.
    """
    with _shown(f"training {recipe}", logging.INFO) as settings:
        from flows.local import launch

        return launch.train(settings, recipe, **parameters)


@plain
@documented
@spelled_out
def promote(recipe: JudgingRecipe, **parameters: Unpack[PromoteParameters]) -> TrainOutcome:
    """
    Judge a model that is there already, and promote what passes, as `hotswap promote` does.

    Returns:
        What it came to: a candidate that does not pass is an outcome whose `decision` and `reason` say so.

    Raises:
        HotswapError: It failed; nothing of what was live has changed.
    """
    with _shown(f"promoting a model of {recipe}", logging.INFO) as settings:
        from flows.local import launch

        return launch.promote(settings, recipe, **parameters)


def rollback(model: str, to: int | None = None, reason: str | None = None, dry_run: bool = False) -> Change:
    """
    Go back to an earlier version, which must answer first, and retire the later ones, as `hotswap rollback` does.

    Args:
        model: The model's name.
        to: The earlier version; the last that was stable when not given.
        reason: What the journal keeps as the reason.
        dry_run: Only say what would change.

    Raises:
        HotswapError: There is no earlier version, or it does not answer; nothing has changed.
    """
    with _shown(f"rolling back {model}", logging.WARNING) as settings:
        from flows.promotion.deployment import Deployment
        from flows.promotion.rollback import rollback

        return rollback(Deployment(settings, model), to, dry_run, reason)


def status(model: str | None = None) -> Overview:
    """
    Home, repository, servers, and the versions of `model`, or of all models, newest first.

    Raises:
        VersionNotFound: There is no such model.
    """
    with _shown("looking", logging.WARNING) as settings:
        from flows.reports.status import overview

        return overview(settings, model)


@contextmanager
def _shown(what: str, level: int) -> Iterator[Settings]:
    """The settings for the block, which does `what`, as in a command of its own."""
    with _kept_environment(), progress.kept_logs(), progress.shown(what, level), defer_sigint():
        settings = load_settings()
        apply_environment(settings)
        # A failure arrives as an exception, so Prefect's own report of it is left out.
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
        yield settings


@contextmanager
def _kept_environment() -> Iterator[None]:
    """What the block adds to the environment, such as where MLflow is, goes with it: the next call may be elsewhere."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)
