"""
Runs requests that arrive together as one.

Requests that arrive in the same turn of the event loop for the same call are concatenated and run once. A request that
comes alone pays nothing for it: the turn ends, the graph runs. Only batch-major calls without side effects are merged,
and when a merged run fails its members run one by one, so that a bad request never spoils its neighbours.

Runs that were measured to be slow, or are larger than any that was not, go to a thread, so that the loop never stops
for long.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from serving.inference.monitoring import Metrics
from serving.protocol.tensors import Array
from serving.runtime.call import Call

MAX_MERGED_ROWS = 1024

log = logging.getLogger(__name__)

Result = list[Array] | Exception
"""The outputs of a call in their order, or what went wrong."""
Done = Callable[[Result], None]


@dataclass(slots=True)
class _Request:
    call: Call
    arrays: list[Array]
    done: Done
    api: str
    started: float


class Merger:
    """
    Runs calls for one event loop, merging those of one turn.

    The first call of a turn runs at once if the turn before had no other: it is likely to be alone again. What comes
    after it waits for the end of the turn.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, threads: int, metrics: Metrics, merge: bool = True) -> None:
        self.runs = 0
        self._loop = loop
        self._metrics = metrics
        self._merge = merge
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="graph")
        self._waiting: list[_Request] = []
        self._expects_one = False
        self._has_run_one = False

    def submit(
        self,
        call: Call,
        arrays: list[Array],
        done: Done,
        api: str = "Predict",
    ) -> None:
        """
        Run `call` in this turn of the loop; the servable is kept until the run has ended.

        `done` is called on the loop's thread, perhaps before this returns, and must not raise.

        Args:
            api: Which kind of inference the metrics count this as.
        """
        started = time.perf_counter()
        call.servable.usage.requests += 1
        runs_at_once = False
        if not (self._waiting or self._has_run_one):
            self._loop.call_soon(self._end_turn)
            runs_at_once = self._has_run_one = self._expects_one
        if runs_at_once and call.is_short(arrays):
            self.runs += 1
            try:
                outputs = call.run(arrays)
            except Exception as exc:
                call.servable.usage.errors += 1
                done(exc)
            else:
                seconds = time.perf_counter() - started
                done(outputs)
                call.measured(arrays, seconds)
                self._metrics.count_run(call.servable.usage, call.servable.model, api, seconds)
            return
        call.servable.acquire()
        request = _Request(call, arrays, done, api, started)
        if runs_at_once:
            self._start([request])
        else:
            self._waiting.append(request)

    def close(self) -> None:
        """Stop the threads once their runs have ended."""
        self._pool.shutdown()

    def _end_turn(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._expects_one = self._has_run_one + len(waiting) == 1
        self._has_run_one = False
        if not waiting:
            return
        for group in _groups(waiting) if self._merge and len(waiting) > 1 else [[request] for request in waiting]:
            self._start(group)

    def _start(self, group: list[_Request]) -> None:
        self.runs += 1
        first, *others = group
        if first.call.is_short(first.arrays, sum(len(request.arrays[0]) for request in others)):
            self._finish(group, _run(group))
        else:
            running = self._loop.run_in_executor(self._pool, _run, group)
            running.add_done_callback(lambda done: self._finish(group, done.result()))

    def _finish(self, group: Sequence[_Request], results: Sequence[Result]) -> None:
        for request, result in zip(group, results, strict=True):
            servable, seconds = request.call.servable, time.perf_counter() - request.started
            servable.release()
            servable.usage.errors += isinstance(result, Exception)
            request.done(result)
            if not isinstance(result, Exception):
                self._metrics.count_run(servable.usage, servable.model, request.api, seconds)


def _groups(waiting: Sequence[_Request]) -> list[list[_Request]]:
    """The requests in groups that run together, in order of arrival."""
    groups: list[list[_Request]] = []
    open_groups: dict[Any, tuple[list[_Request], int]] = {}
    for request in waiting:
        more, kind, merges = request.call.batch(request.arrays)
        if not (merges and request.call.mergeable):
            groups.append([request])
            continue
        group, rows = open_groups.get(kind, ([], 0))
        if not group or rows + more > MAX_MERGED_ROWS:
            group, rows = [], 0
            groups.append(group)
        group.append(request)
        open_groups[kind] = (group, rows + more)
    return groups


def _run(group: list[_Request]) -> list[Result]:
    merged = _run_merged(group) if len(group) > 1 else None
    return merged if merged is not None else [_run_one(request.call, request.arrays) for request in group]


def _run_one(call: Call, arrays: list[Array]) -> Result:
    try:
        return call(arrays)
    except Exception as exc:  # whatever it is belongs to this request alone
        return exc


def _give_up_merging(call: Call) -> None:
    """
    Run what it is asked one by one from now on.

    The proof takes the shapes that a graph declares for its variables as true; here they are not.
    """
    call.mergeable = False
    servable = call.servable
    log.error(
        "merging ends, outputs have other rows than inputs model=%s version=%d signature=%s",
        servable.model,
        servable.version,
        call.signature.name,
    )


def _run_merged(group: list[_Request]) -> list[Result] | None:
    """The results of one run for the whole group, or None where that did not work out."""
    call = group[0].call
    sizes = [len(request.arrays[0]) for request in group]
    try:
        arrays = [np.concatenate(column) for column in zip(*[request.arrays for request in group], strict=True)]
        outputs = call(arrays)
    except Exception:  # the culprit gets its own error when the members run one by one
        return None
    if any(output.shape[:1] != (sum(sizes),) for output in outputs):
        _give_up_merging(call)
        return None
    results: list[Result] = []
    start = 0
    for size in sizes:
        results.append([output[start : start + size] for output in outputs])
        start += size
    return results
