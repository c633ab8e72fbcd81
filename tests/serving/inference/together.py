"""Requests that arrive in one turn of the event loop."""

from __future__ import annotations

import asyncio
from functools import partial

from serving.inference.batching import Merger
from serving.inference.monitoring import Metrics
from serving.protocol.tensors import Array
from serving.runtime.call import Call


def run_together(
    requests: list[tuple[Call, list[Array]]], merge: bool = True, threads: int = 2
) -> tuple[list[object], int]:
    """The results of requests that arrive in one turn of the loop, and how many runs they took."""

    async def main() -> tuple[list[object], int]:
        merger = Merger(asyncio.get_running_loop(), threads, Metrics(), merge)
        results: list[object] = [None] * len(requests)
        left = asyncio.Semaphore(0)

        def done(position: int, result: object) -> None:
            results[position] = result
            left.release()

        for position, (call, arrays) in enumerate(requests):
            merger.submit(call, arrays, partial(done, position))
        for _ in requests:
            await left.acquire()
        merger.close()
        return results, merger.runs

    return asyncio.run(main())
