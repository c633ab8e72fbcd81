"""
Metrics that are recorded while a training runs, so that its page shows them meanwhile and a killed run keeps them.

MLflow's own monitor records processor, memory and disk. Epochs are sent together, at most once a second: a call for
each would take as long as the epochs of a small model.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mlflow.entities import Metric

_SECONDS_BETWEEN_CALLS = 1.0
_MAX_METRICS_PER_CALL = 1000
_SECONDS_BETWEEN_SAMPLES = 2.0
_VALIDATION = "val_"


class EpochMetrics:
    """The metrics by epoch of one run, the first epoch as step 1."""

    def __init__(self, send: Callable[[list[Metric]], None]) -> None:
        self._send = send
        self._waiting: list[Metric] = []
        self._sent = time.monotonic()

    def add(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics of an epoch, those of Keras that begin with ``val_`` as ``validation_``."""
        now = time.time_ns() // 1_000_000
        self._waiting += [Metric(_name(name), float(value), now, epoch) for name, value in metrics.items()]
        if time.monotonic() - self._sent >= _SECONDS_BETWEEN_CALLS:
            self.flush()

    def flush(self) -> None:
        """Send what waits."""
        waiting, self._waiting = self._waiting, []
        for start in range(0, len(waiting), _MAX_METRICS_PER_CALL):
            self._send(waiting[start : start + _MAX_METRICS_PER_CALL])
        self._sent = time.monotonic()


def _name(name: str) -> str:
    return f"validation_{name.removeprefix(_VALIDATION)}" if name.startswith(_VALIDATION) else f"train_{name}"


@contextmanager
def system_metrics(run_id: str, tracking_address: str) -> Iterator[None]:
    """Let MLflow record the use of the machine during the block."""
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    logging.getLogger("mlflow.system_metrics").setLevel(logging.WARNING)
    monitor: Any = SystemMetricsMonitor(
        run_id, sampling_interval=_SECONDS_BETWEEN_SAMPLES, tracking_uri=tracking_address
    )
    monitor.start()
    try:
        yield
    finally:
        monitor.finish()
