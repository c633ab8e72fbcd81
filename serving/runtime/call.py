"""
Runs a signature for one set of outputs: a session callable, with the checks that need no graph.

Source: tensorflow_serving/servables/tensorflow/predict_util.cc
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterable, Sequence
from math import inf
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
from tensorflow.core.framework import types_pb2

from serving.protocol.errors import GraphError, InvalidRequest, Unsupported
from serving.protocol.signature import Signature, TensorInfo
from serving.protocol.tensors import Array, data_type_of, is_quantized, type_name
from serving.runtime.operations import TIME_DEPENDS_ON_VALUES
from serving.runtime.tf_session import ALL_THREADS, Run

if TYPE_CHECKING:
    from serving.runtime.servable import Servable

LONG_SECONDS = 0.003
MAX_TIMES_THE_ROWS = 8

_INSIDE_TENSORFLOW = {types_pb2.DT_RESOURCE, types_pb2.DT_VARIANT}
_NOT_ONE_TENSOR = "Tensor :0, specified in either feed_devices or fetch_devices was not found in the Graph"
_RUNS_PER_ESTIMATE = 3
_MAX_KINDS = 1024
_dtype_of, _shape_of = attrgetter("dtype"), attrgetter("shape")


class Batch(NamedTuple):
    """
    How much a run is given: so many rows of a kind.

    Requests of the same kind can be run together if it `merges`; if not, all there is counts as one row.
    """

    rows: int
    kind: Hashable
    merges: bool


class Call:
    """
    One signature called for one set of outputs.

    Calling it runs the graph: arrays in the order of `aliases` in, arrays in the order of `outputs` out. A short graph
    runs in the calling thread alone, as handing its operations to other threads would cost more than they do; a long
    one uses all of TensorFlow's. `seconds` estimates how long a run takes and is infinite until it is known. Only a
    `steady` one takes as long for other values; another one can be given a timeout, after which TensorFlow ends it.
    """

    def __init__(
        self,
        servable: Servable,
        signature: Signature,
        outputs: tuple[str, ...],
        timeout_milliseconds: int = 0,
    ) -> None:
        inputs, fetched = list(signature.inputs.values()), [signature.outputs[alias] for alias in outputs]
        feeds, fetches = [info.name for info in inputs], [info.name for info in fetched]
        _check_sendable([*feeds, *fetches], zip(outputs, fetched, strict=True))
        self.servable = servable
        self.signature = signature
        self.aliases = tuple(signature.inputs)
        self.outputs = outputs
        self.is_declared = (frozenset(feeds), frozenset(fetches)) in servable.declared
        """whether a signature has just these inputs and outputs"""
        self.dtypes = [info.dtype for info in inputs]
        """None where only the graph knows"""
        self.type_names = [type_name(info.data_type) for info in inputs]
        self._quantized: list[tuple[int, Any]] = [
            (at, info.dtype) for at, info in enumerate(fetched) if is_quantized(info.data_type)
        ]
        self._row_shapes = [None if info.shape is None else info.shape[1:] for info in inputs]
        self._last_batch: tuple[list[tuple[int, ...]], Batch] = ([], Batch(0, None, False))
        self._short_rows: dict[Hashable, int] = {}
        self._short_shapes: list[tuple[int, ...]] | None = None
        """of the last run that was short"""
        self.mergeable = servable.obstacle(signature, outputs) is None
        """whether requests may be run as one"""
        self.steady = servable.operations.behind(fetches).isdisjoint(TIME_DEPENDS_ON_VALUES)
        self.seconds = inf
        self._least_seconds = inf
        self._measured_runs = 0
        self._feeds, self._fetches = feeds, fetches
        self._on_all_threads: Run | None = None
        if timeout_milliseconds:
            self._graph = servable.session.callable(feeds, fetches, ALL_THREADS, timeout_milliseconds)
            self._on_all_threads = self._graph
        else:
            self._graph = servable.session.callable(feeds, fetches)

    def __call__(self, arrays: Sequence[Array]) -> list[Array]:
        started = time.perf_counter()
        results = self.run(arrays)
        self.measured(arrays, time.perf_counter() - started)
        return results

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """
        Run the graph for a caller that reports to `measured` how long it took.

        Raises:
            GraphError: TensorFlow refused, with its code and message.
            InvalidRequest: An array is none that TensorFlow can take.
        """
        results = self._graph(arrays) if not LONG_SECONDS < self.seconds < inf else self._run_on_all_threads(arrays)
        for position, dtype in self._quantized:
            if results[position].dtype == dtype[0]:  # TensorFlow gives the bare integers
                results[position] = results[position].view(dtype)
        return results

    def _run_on_all_threads(self, arrays: Sequence[Array]) -> list[Array]:
        if self._on_all_threads is None:
            self._on_all_threads = self.servable.session.callable(self._feeds, self._fetches, ALL_THREADS)
        return self._on_all_threads(arrays)

    def measured(self, arrays: Sequence[Array], seconds: float) -> None:
        """
        Take note of how long a run took.

        What is slow is slow again, so of three runs the quickest counts: the others may have prepared the graph for
        what they were given, or have been disturbed. The estimate grows at once and falls little by little.
        """
        if seconds < self._least_seconds:
            self._least_seconds = seconds
        self._measured_runs += 1
        if self._measured_runs >= _RUNS_PER_ESTIMATE:
            least, is_first = self._least_seconds, self.seconds == inf
            self.seconds = least if is_first else max(least, 0.9 * self.seconds + 0.1 * least)
            self._least_seconds, self._measured_runs = inf, 0
        if seconds <= LONG_SECONDS and (shapes := list(map(_shape_of, arrays))) != self._short_shapes:
            self._short_shapes = shapes
            rows, kind, _ = self.batch(arrays)
            if rows > self._short_rows.get(kind, 0):
                if len(self._short_rows) >= _MAX_KINDS:
                    self._short_rows.clear()
                self._short_rows[kind] = rows

    def is_short(self, arrays: Sequence[Array], more_rows: int = 0) -> bool:
        """
        Whether a run of these arrays, and so many rows more of their kind, is so short that an event loop can wait.

        It must have been seen: from other shapes a graph can make something as large as the square of what it is given.
        """
        if not self.steady or self.seconds > LONG_SECONDS:
            return False
        if not more_rows and list(map(_shape_of, arrays)) == self._short_shapes:
            return True
        rows, kind, _ = self.batch(arrays)
        return rows + more_rows <= MAX_TIMES_THE_ROWS * self._short_rows.get(kind, 0)

    def check_types(self, arrays: Sequence[Array]) -> None:
        """Refuse arrays of another type than the signature's, as the graph would."""
        if list(map(_dtype_of, arrays)) == self.dtypes:
            return
        for position, (array, dtype) in enumerate(zip(arrays, self.dtypes, strict=True)):
            if dtype is not None and array.dtype != dtype:
                given = type_name(data_type_of(array.dtype))
                expected = self.type_names[position]
                raise InvalidRequest(f"Expects arg[{position}] to be {expected} but {given} is provided")

    def batch(self, arrays: Sequence[Array]) -> Batch:
        """How much these arrays are."""
        shapes = list(map(_shape_of, arrays))
        last_shapes, batch = self._last_batch
        if shapes != last_shapes:  # mostly they are those of the request before
            batch = self._batch_of(shapes)
            self._last_batch = shapes, batch
        return batch

    def _batch_of(self, shapes: Sequence[tuple[int, ...]]) -> Batch:
        rows = shapes[0][0] if shapes and shapes[0] else 0
        merges = self.mergeable and rows > 0
        for shape, expected in zip(shapes, self._row_shapes, strict=True):
            merges = merges and shape[:1] == (rows,) and _fits(shape[1:], expected or ())
        if merges:
            return Batch(rows, (id(self), *[shape[1:] for shape in shapes]), True)
        return Batch(1, tuple(shapes), False)


def _fits(shape: Sequence[int], expected: Sequence[int]) -> bool:
    return len(shape) == len(expected) and all(
        wanted in (-1, size) for size, wanted in zip(shape, expected, strict=True)
    )


def _check_sendable(tensors: Iterable[str], outputs: Iterable[tuple[str, TensorInfo]]) -> None:
    if not all(tensors):
        raise GraphError(grpc.StatusCode.INVALID_ARGUMENT, _NOT_ONE_TENSOR)
    for alias, info in outputs:
        if info.data_type in _INSIDE_TENSORFLOW:
            raise Unsupported(
                f"Output {alias!r} is a tensor of type {type_name(info.data_type)}, which lives inside TensorFlow and "
                "cannot be sent; leave it out by an output filter, or ask another signature"
            )
