"""What hotswap does during a Keras training: it records epochs, shows how far it has come, and keeps its state."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from flows.console import progress

log = logging.getLogger(__name__)

Progress = Callable[[int, Mapping[str, float]], None]
"""Called after each epoch with its number, from 1, and its metrics."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Where it is kept how far a training has come."""

    state: Path
    """the directory of Keras's own state, which has it already if the training goes on"""
    copy: Callable[[], None]
    """keeps a copy of it elsewhere"""


_LINES = 5
_LINE_SECONDS = 60.0
_SHOWN_SECONDS = 0.2
_FIRST_BACKUP_SECONDS = 1.0
_FIRST_COPY_SECONDS = 30.0
_TIME_SHARE = 20


class Recorded(keras.callbacks.Callback):  # type: ignore[misc]
    """Hands on the metrics of each epoch."""

    def __init__(self, report: Progress) -> None:
        super().__init__()
        self._report = report

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self._report(epoch + 1, logs or {})


class Shown(keras.callbacks.Callback):  # type: ignore[misc]
    """Shows epoch, batch, metrics and the time left; where there is no terminal, in a few lines of log."""

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self._epochs = epochs
        self._every = max(1, epochs // _LINES)
        self._epoch = 0
        self._measured_from: tuple[float, float] | None = None
        self._shown_at = self._line_at = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        now = time.monotonic()
        if now < self._shown_at + _SHOWN_SECONDS:
            return
        self._shown_at = now
        steps = self.params.get("steps")
        where = f", batch {batch + 1} of {steps}" if steps else f", batch {batch + 1}"
        self._show(where, logs or {}, self._left((batch + 1) / steps if steps else 0.0))

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        left = self._left(1.0)
        self._show("", logs or {}, left)
        number, now = epoch + 1, time.monotonic()
        if number % self._every == 0 or number == self._epochs or now > self._line_at + _LINE_SECONDS:
            self._line_at = now
            numbers = " ".join(f"{name}={value:.4f}" for name, value in (logs or {}).items())
            told = f" left={left}" if left and number < self._epochs else ""
            log.info("training epoch=%d/%d%s %s", number, self._epochs, told, numbers)

    def _show(self, where: str, logs: Mapping[str, float], left: str) -> None:
        numbers = "".join(f", {name} {value:.4g}" for name, value in logs.items())
        told = f", {left} left" if left else ""
        progress.step(f"training epoch {self._epoch + 1} of {self._epochs}{where}{told}{numbers}")

    def _left(self, share: float) -> str:
        """The time left, judged from what came after the first batches, which take longer; empty until then."""
        done, now = self._epoch + share, time.monotonic()
        if self._measured_from is None:
            self._measured_from = done, now
        since, started = self._measured_from
        if done <= since or now - started < 1:
            return ""
        return _duration((self._epochs - done) * (now - started) / (done - since))


class Backup(keras.callbacks.BackupAndRestore):  # type: ignore[misc]
    """
    Restores the state that its directory has, and keeps it there after an epoch, in at most a twentieth of the time.

    Two states are kept, as a kill may come while one is written. From time to time it is copied after that, in at
    most another twentieth.
    """

    def __init__(self, kept: Kept) -> None:
        super().__init__(str(kept.state), double_checkpoint=True, delete_checkpoint=False)
        self._copy = kept.copy
        self._due = time.monotonic() + _FIRST_BACKUP_SECONDS
        self._copy_due = time.monotonic() + _FIRST_COPY_SECONDS

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        started = time.monotonic()
        if started < self._due:
            return
        super().on_epoch_end(epoch, logs)
        self._due = next_due(started, _FIRST_BACKUP_SECONDS)
        if started >= self._copy_due:
            written = time.monotonic()
            self._copy()
            self._copy_due = next_due(written, _FIRST_COPY_SECONDS)


def next_due(started: float, at_least: float) -> float:
    """When to do again what was started then, in at most a twentieth of the time."""
    now = time.monotonic()
    return now + max(at_least, _TIME_SHARE * (now - started))


def hotswaps_own(report: Progress, epochs: int, kept: Kept | None) -> list[Any]:
    """The callbacks of a training whose state is `kept`, if it is."""
    return [Recorded(report), Shown(epochs), *([Backup(kept)] if kept else [])]


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
