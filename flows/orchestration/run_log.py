"""
Keeps in Prefect what a run says on the command line, line by line.

What is said before the run has begun, as while TensorFlow is loaded, is sent when it has.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from flows.console import progress

_MAX_EARLY = 1_000


class RunLog(logging.Handler):
    """Sends records to Prefect, as lines of the flow run or the task run that they were made in."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._early: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        flow_run = _flow_run()
        if flow_run is None:
            self._early = [*self._early, record][-_MAX_EARLY:]
            return
        from prefect.logging.handlers import APILogHandler

        early, self._early = self._early, []
        handler = APILogHandler()
        for each in early:
            each.flow_run_id = flow_run
        for each in (*early, record):
            handler.emit(each)


def _flow_run() -> str | None:
    """The flow run that this thread is in; Prefect is not imported to find that out."""
    if "prefect.context" not in sys.modules:
        return None
    from prefect.context import FlowRunContext, TaskRunContext

    flow, task = FlowRunContext.get(), TaskRunContext.get()
    if flow is not None and flow.flow_run is not None:
        return str(flow.flow_run.id)
    return str(task.task_run.flow_run_id) if task is not None and task.task_run.flow_run_id else None


@contextmanager
def kept() -> Iterator[None]:
    """During the block the lines of our modules, from INFO up, are kept in Prefect too."""
    loggers = [logging.getLogger(room) for room in progress.ROOMS]
    if any(isinstance(handler, RunLog) for handler in loggers[0].handlers):
        yield
        return
    handler, level = RunLog(), loggers[0].level
    if not progress.log.propagate:
        loggers.append(progress.log)
    if level == logging.NOTSET:  # nobody shows logs, as in a worker of Prefect's own
        loggers[0].setLevel(logging.INFO)
    for each in loggers:
        each.addHandler(handler)
    try:
        yield
    finally:
        for each in loggers:
            each.removeHandler(handler)
        loggers[0].setLevel(level)
