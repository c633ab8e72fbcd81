"""
Keeps where a training has come to, so that one that was killed can go on.

The state is Keras's own (`BackupAndRestore`), in ``<home>/checkpoints/<MLflow run>``, beside what the training was
asked for. It is written at the end of an epoch, as `callbacks` has it, and is gone when the model has been exported; so
are the copies of it that the run has among its artifacts.
What goes on is not, bit for bit, what would have come without the interruption: the order of the rows begins anew.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from flows.recipes import Recipe
from serving.protocol.errors import HotswapError

log = logging.getLogger(__name__)

_KEPT_SECONDS = 30 * 86_400
REQUEST, STATE = "training.json", "state"
"""of a checkpoint's directory: what the training was asked for, and how far it has come"""
_LOCK = "training.lock"


class CannotResume(HotswapError):
    """This training cannot go on."""


@dataclass(frozen=True, slots=True)
class TrainingKey:
    """What a training was asked for, by which it is recognised."""

    model: str
    seed: int
    epochs: int
    digest: str
    """of its data; empty until they are loaded"""


def interrupted(home: Path, run: str, model: str) -> TrainingKey:
    """
    What the interrupted training of the MLflow run `run` was asked for.

    Raises:
        CannotResume: It keeps no checkpoint, or was of another model.
    """
    try:
        found = TrainingKey(**json.loads((directory_of(home, run) / REQUEST).read_text("utf-8")))
    except (OSError, ValueError, TypeError) as exc:
        others = ", ".join(sorted(each.parent.name for each in (home / "checkpoints").glob(f"*/{REQUEST}")))
        there = f"those of {others} can" if others else "no other can either"
        raise CannotResume(f"The training of run {run} cannot go on, as it keeps no checkpoint: {there}") from exc
    if found.model != model:
        raise CannotResume(f"Run {run} trained {found.model!r}, not {model!r}: name its recipe")
    return found


def seed_and_epochs(home: Path, recipe: Recipe, parameters: Mapping[str, Any]) -> tuple[int, int]:
    """
    What a training is asked for; one that goes on keeps its seed, and its epochs where no others are given.

    Raises:
        CannotResume: It cannot go on.
    """
    run = parameters.get("resume")
    if run is None:
        return parameters["seed"], parameters["epochs"] or recipe.epochs
    found = interrupted(home, run, recipe.name)
    return found.seed, parameters["epochs"] or found.epochs


@contextmanager
def checkpoint(home: Path, run: str, training: TrainingKey, resumed: str | None) -> Iterator[Path]:
    """
    The directory for the state of a training during the block; it stays when the block fails.

    Args:
        home: Where checkpoints are kept.
        run: The MLflow run of the training.
        training: What it was asked for.
        resumed: The run of the interrupted training whose state it takes over.

    Raises:
        CannotResume: That one still runs, or has other data.
    """
    directory = directory_of(home, run)
    _forget_old(home)
    if resumed is not None:
        if interrupted(home, resumed, training.model).digest != training.digest:
            raise CannotResume(f"The data of {training.model!r} has changed since run {resumed}: train anew")
        _take_over(directory_of(home, resumed), directory)
    directory.mkdir(parents=True, exist_ok=True)
    with FileLock(directory / _LOCK):
        (directory / REQUEST).write_text(json.dumps(asdict(training)), "utf-8")
        try:
            yield directory / STATE
        except BaseException:
            if (directory / STATE).exists():
                log.warning("training interrupted: `--resume %s` goes on from its last checkpoint", run)
            else:
                shutil.rmtree(directory, ignore_errors=True)
            raise
    shutil.rmtree(directory, ignore_errors=True)


def _take_over(source: Path, target: Path) -> None:
    try:
        with FileLock(source / _LOCK, timeout=0):
            source.rename(target)
    except Timeout as exc:
        raise CannotResume(f"The training of run {source.name} still runs: end it first") from exc


def _forget_old(home: Path) -> None:
    """Remove what nobody has gone on with for a month."""
    for request in (home / "checkpoints").glob(f"*/{REQUEST}"):
        if time.time() - request.stat().st_mtime > _KEPT_SECONDS:
            shutil.rmtree(request.parent, ignore_errors=True)


def directory_of(home: Path, run: str) -> Path:
    """Where the checkpoint of an MLflow run is."""
    return home / "checkpoints" / Path(run).name
