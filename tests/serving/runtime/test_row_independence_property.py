"""Whatever is proven to treat each row by itself answers the same, alone and merged."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from serving.inference.batching import Merger
from serving.inference.monitoring import Metrics
from serving.protocol.tensors import Array
from serving.runtime.call import Call
from tests.serving.inference.in_memory import servable_of
from tests.serving.runtime import graph_grammar

SIZES = (1, 2, 3, 1, 5)
"""rows of the requests that come together"""
EXAMPLES, SOAK_EXAMPLES = 60, 20_000

PLANS = st.lists(st.tuples(st.sampled_from(graph_grammar.step_names()), st.integers(0, 2**20)), min_size=1, max_size=7)


def requests_of(seed: int) -> list[list[Array]]:
    """Whole numbers, float32 [rows, 4] and [rows, 2, 3]."""
    random = np.random.default_rng(seed)
    shapes = [[(size, 4), (size, 2, 3)] for size in SIZES]
    return [[random.integers(-3, 4, shape).astype(np.float32) for shape in each] for each in shapes]


def outcome(call: Call, arrays: Sequence[Array]) -> Any:
    try:
        return call.run(arrays)
    except Exception as exc:
        return exc


def merged(call: Call, requests: Sequence[list[Array]]) -> list[Any]:
    """What each request of one turn of the loop gets."""

    async def main() -> list[Any]:
        merger = Merger(asyncio.get_running_loop(), 1, Metrics())
        results: list[Any] = [None] * len(requests)
        left = asyncio.Semaphore(0)

        def done(position: int, result: object) -> None:
            results[position] = result
            left.release()

        for position, arrays in enumerate(requests):
            merger.submit(call, arrays, partial(done, position))
        for _ in requests:
            await left.acquire()
        merger.close()
        return results

    return asyncio.run(main())


def check(plan: Sequence[tuple[str, int]], seed: int) -> bool:
    """Hold merged answers against those of each request alone; False where the graph is not proven."""
    specs = [tf.TensorSpec([None, 4], tf.float32), tf.TensorSpec([None, 2, 3], tf.float32)]
    servable = servable_of(lambda *inputs: graph_grammar.build(plan, inputs), *specs)
    try:
        call, _ = servable.bind(servable.signatures["serving_default"], dict(zip(("x0", "x1"), specs, strict=True)))
        if not call.mergeable:
            return False
        requests = requests_of(seed)
        alone = [outcome(call, arrays) for arrays in requests]
        for one, other in zip(alone, merged(call, requests), strict=True):
            assert isinstance(one, Exception) == isinstance(other, Exception), (one, other)
            if not isinstance(one, Exception):
                for expected, found in zip(one, other, strict=True):
                    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
        assert call.mergeable, "the outputs of the merged run did not have the rows of its inputs"
        return True
    finally:
        servable.close()


def test_what_is_proven_answers_the_same_alone_and_merged(soak: bool) -> None:
    """For random graphs of layers and of operations that couple rows; enough of them are proven to say something."""
    proven: list[bool] = []
    phases = [Phase.generate, Phase.shrink] if soak else [Phase.generate]

    @settings(
        max_examples=SOAK_EXAMPLES if soak else EXAMPLES,
        deadline=None,
        database=None,
        derandomize=not soak,
        phases=phases,
        suppress_health_check=list(HealthCheck),
    )
    @given(plan=PLANS, seed=st.integers(0, 2**16))
    def run(plan: list[tuple[str, int]], seed: int) -> None:
        proven.append(check(plan, seed))

    run()
    assert sum(proven) > len(proven) / 5
