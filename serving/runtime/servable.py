"""
What is one loaded SavedModel?

A `Servable` owns a graph and a session. Each way of calling it (a signature, which inputs are fed, which outputs are
asked for) becomes a `Call`: a session callable with the checks that need no graph.

A session callable leans on ``TF_SessionRunCallable`` of TensorFlow's C API: a run of a small graph costs about 25 µs
through it, 150 µs through an eager signature function. Every test of a model fails if TensorFlow takes it away.

Source: tensorflow_serving/servables/tensorflow/predict_util.cc
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence, Set
from contextlib import suppress
from functools import partial
from math import inf
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import grpc
import numpy as np
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import config_pb2
from tensorflow.python.client import pywrap_tf_session as c_api
from tensorflow.python.framework import errors_impl, ops, tensor_util

from serving.protocol.errors import GraphError, InvalidRequest, ServingError, Unsupported
from serving.protocol.tensors import Array, data_type_of, dtype_of, is_quantized, type_name
from serving.runtime.background import Native, at_once
from serving.runtime.batching_limits import BatchingLimits
from serving.runtime.operations import AS_LONG_AS_VALUES_SAY, Operations
from serving.runtime.row_independence.analysis import Analysis
from serving.runtime.row_independence.values import Origin
from serving.runtime.signature import Signature, TensorInfo, check_outputs, with_defaults
from serving.runtime.usage import Usage

INIT_SIGNATURE = "__saved_model_init_op"
LONG_SECONDS = 0.003
MAX_TIMES_THE_ROWS = 8

_INSIDE_TENSORFLOW = {types_pb2.DT_RESOURCE, types_pb2.DT_VARIANT}
_NOT_ONE_TENSOR = "Tensor :0, specified in either feed_devices or fetch_devices was not found in the Graph"
_CALLERS_THREAD, _ALL_THREADS = -1, 0
_RUNS_PER_ESTIMATE = 3
_MAX_KINDS = 1024
_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}
_dtype_of, _shape_of = attrgetter("dtype"), attrgetter("shape")

_Graph = Callable[[Sequence[Array], None], list[Array]]
"""Runs a graph: the fed arrays, and no metadata of the run, in; the fetched arrays out."""


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
        infos = list(signature.inputs.values())
        feeds, fetches = _names(infos), _names(signature.outputs[alias] for alias in outputs)
        if not all((*feeds, *fetches)):
            raise GraphError(grpc.StatusCode.INVALID_ARGUMENT, _NOT_ONE_TENSOR)
        for alias in outputs:
            _check_sendable(alias, signature.outputs[alias])
        self.servable = servable
        self.signature = signature
        self.aliases = tuple(signature.inputs)
        self.outputs = outputs
        self.is_declared = (frozenset(feeds), frozenset(fetches)) in servable.declared
        """whether a signature has just these inputs and outputs"""
        self.dtypes = [dtype_of(info.dtype) for info in infos]
        """None where only the graph knows"""
        self.type_names = [type_name(info.dtype) for info in infos]
        kinds = [signature.outputs[alias].dtype for alias in outputs]
        self._quantized: list[tuple[int, Any]] = [
            (at, dtype_of(kind)) for at, kind in enumerate(kinds) if is_quantized(kind)
        ]
        self.row_shapes = [None if info.shape is None else info.shape[1:] for info in infos]
        self._last_batch: tuple[list[tuple[int, ...]], Batch] = ([], Batch(0, None, False))
        self._short_rows: dict[Hashable, int] = {}
        self._short_shapes: list[tuple[int, ...]] | None = None
        """of the last run that was short"""
        operations = servable.operations.behind(fetches)
        self.mergeable = servable.obstacle(signature, outputs) is None
        """whether requests may be run as one"""
        self.steady = operations.isdisjoint(AS_LONG_AS_VALUES_SAY)
        self.seconds = inf
        self._least_seconds = inf
        self._measured_runs = 0
        self._feeds, self._fetches = feeds, fetches
        self._long_graph: _Graph | None = None
        if timeout_milliseconds:
            self._graph = self._long_graph = servable.callable(feeds, fetches, True, timeout_milliseconds)
        else:
            self._graph = servable.callable(feeds, fetches)

    def __call__(self, arrays: Sequence[Array]) -> list[Array]:
        started = time.perf_counter()
        results = self.run(arrays)
        self.measured(arrays, time.perf_counter() - started)
        return results

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """
        Run the graph for a caller that tells `measured` how long it took.

        Raises:
            GraphError: TensorFlow refused, with its code and message.
            InvalidRequest: An array is none that TensorFlow can take.
        """
        try:
            if LONG_SECONDS < self.seconds < inf:
                results = self._on_all_threads()(arrays, None)
            else:
                results = self._graph(arrays, None)
        except errors_impl.OpError as exc:
            raise graph_error(exc) from exc
        except (TypeError, ValueError, RuntimeError) as exc:
            raise InvalidRequest(str(exc)) from exc
        for position, result in enumerate(results):
            if type(result) is not np.ndarray:
                results[position] = _as_array(result)
        for position, dtype in self._quantized:
            if results[position].dtype == dtype[0]:  # TensorFlow gives the bare integers
                results[position] = results[position].view(dtype)
        return results

    def _on_all_threads(self) -> _Graph:
        if self._long_graph is None:
            self._long_graph = self.servable.callable(self._feeds, self._fetches, all_threads=True)
        return self._long_graph

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
        Is a run of these arrays, and so many rows more of their kind, so short that an event loop may wait for it?

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
        for shape, expected in zip(shapes, self.row_shapes, strict=True):
            merges = merges and shape[:1] == (rows,) and _fits(shape[1:], expected or ())
        if merges:
            return Batch(rows, (id(self), *[shape[1:] for shape in shapes]), True)
        return Batch(1, tuple(shapes), False)


class Servable:
    """
    One version of one model, ready to run.

    `acquire` and `release` count its users; once `retire` has been called, the last of them frees the graph. All three
    are called on the event loop's thread alone.
    """

    def __init__(
        self,
        model: str,
        version: int,
        path: Path,
        session: Any,
        meta_graph: Any,
        native: Native = at_once,
    ) -> None:
        self.model = model
        self.version = version
        self.path = path
        self.signature_defs: Mapping[str, Any] = dict(meta_graph.signature_def)
        self.signatures: Mapping[str, Signature] = {
            name: _signature(name, signature) for name, signature in self.signature_defs.items()
        }
        self.double_signatures = frozenset(
            name
            for name, signature in self.signatures.items()
            if any(info.dtype == types_pb2.DT_DOUBLE for info in signature.inputs.values())
        )
        """the signatures that take a double"""
        self.declared = frozenset(
            (frozenset(_names(signature.inputs.values())), frozenset(_names(signature.outputs.values())))
            for signature in self.signatures.values()
        )
        """the tensors that go into and come out of each signature"""
        self.limits: BatchingLimits | None = None
        """what batching asks of requests"""
        self.usage = Usage()
        self.native = native
        """how TensorFlow is called for what it does in C++ for long"""
        self._session = session
        self.operations = Operations(meta_graph.graph_def)
        self._analysis = Analysis(meta_graph.graph_def)
        self._obstacles: dict[tuple[Hashable, str], Origin | None] = {}
        self._calls: dict[tuple[str, tuple[str, ...], int], Call] = {}
        self._users = 0
        self._free: Callable[[], None] | None = None

    def bind(
        self,
        signature: Signature,
        inputs: Mapping[str, Array],
        outputs: Sequence[str] = (),
        timeout_milliseconds: int = 0,
    ) -> tuple[Call, list[Array]]:
        """
        Match a request with a signature.

        Args:
            inputs: One array per signature input; those with a default may be left out.
            outputs: The outputs wanted, by alias; none means all.
            timeout_milliseconds: How long a run may take that is not steady; 0 means for ever.

        Raises:
            InvalidRequest: A name differs from the signature.
        """
        if inputs.keys() != signature.inputs.keys():
            inputs = with_defaults(signature, inputs)
        call = self._call(signature, tuple(outputs))
        if timeout_milliseconds and not call.steady:
            call = self._call(signature, tuple(outputs), timeout_milliseconds)
        return call, [inputs[alias] for alias in call.aliases]

    def _call(self, signature: Signature, outputs: tuple[str, ...], timeout_milliseconds: int = 0) -> Call:
        key = (signature.name, outputs, timeout_milliseconds)
        call = self._calls.get(key)
        if call is None:
            wanted = outputs or tuple(signature.outputs)
            check_outputs(signature, wanted)
            call = self._calls[key] = Call(self, signature, wanted, timeout_milliseconds)
        return call

    @property
    def prepared(self) -> Set[str]:
        """The signatures that can be run for all of their outputs without TensorFlow preparing the graph first."""
        return {name for name, outputs, *_ in list(self._calls) if not outputs}

    def prepare(self, names: Set[str]) -> None:
        """Do for these signatures, if they are there, what their first requests would else wait for."""
        for name in names & self.signatures.keys():
            with suppress(ServingError):  # told to whoever asks for it
                self._call(self.signatures[name], ())

    def obstacle(self, signature: Signature, outputs: Sequence[str] = ()) -> Origin | None:
        """
        The operation that stands in the way of running several requests as one; None where each row is by itself.

        What one signature is found to be is kept: nothing is looked for while requests wait.
        """
        shapes = {info.name: _batch_shape(info) for info in signature.inputs.values()}
        feeds = tuple(shapes.items())
        fetches = _names(signature.outputs[alias] for alias in outputs or signature.outputs)
        if missing := [fetch for fetch in fetches if (feeds, fetch) not in self._obstacles]:
            found = self._analysis.obstacles(shapes, missing)
            self._obstacles |= {(feeds, fetch): found[fetch] for fetch in missing}
        return next((each for fetch in fetches if (each := self._obstacles[feeds, fetch]) is not None), None)

    def callable(
        self,
        feeds: Sequence[str],
        fetches: Sequence[str],
        all_threads: bool = False,
        timeout_milliseconds: int = 0,
    ) -> _Graph:
        """
        A function of the fed arrays that returns the fetched ones; TensorFlow keeps what it is made of until `close`.

        Args:
            all_threads: Whether all of TensorFlow's threads run it, or the caller's alone.
            timeout_milliseconds: When all threads stop running it; 0 means never.
        """
        distinct = list(dict.fromkeys(fetches))
        options = config_pb2.CallableOptions(feed=feeds, fetch=distinct)
        options.run_options.inter_op_thread_pool = _ALL_THREADS if all_threads else _CALLERS_THREAD
        options.run_options.timeout_in_ms = timeout_milliseconds
        try:
            graph = self.native(_callable, self._session, options)
        except errors_impl.OpError as exc:
            raise graph_error(exc) from exc
        if len(distinct) == len(fetches):
            return graph
        positions = [distinct.index(name) for name in fetches]
        return lambda arrays, _: [found[position] for found in [graph(arrays, None)] for position in positions]

    def run_operation(self, name: str, feeds: Mapping[str, Array]) -> None:
        """
        Run one operation that has no result.

        Raises:
            OpError: TensorFlow refused.
        """
        options = config_pb2.CallableOptions(feed=list(feeds), target=[name])
        self.native(_run_once, self._session, options, list(feeds.values()))

    def acquire(self) -> None:
        """Keep the graph until `release`."""
        self._users += 1

    def release(self) -> None:
        """End one `acquire`."""
        self._users -= 1
        if self._users == 0 and self._free is not None:
            self._free()

    def retire(self, free: Callable[[], None]) -> None:
        """Call `free` once nobody uses this servable any more: now, or at the last `release`."""
        self._free = free
        if self._users == 0:
            free()

    def close(self) -> None:
        """Give the memory back."""
        self._calls.clear()
        self.operations.clear()
        self._analysis.clear()
        graph = self._session.graph
        self._session.close()
        self._session = None
        ops.dismantle_graph(graph)  # its objects refer to each other and would wait for a rare collection


class ServableHandle:
    """A servable in use: inside ``with`` it is not freed."""

    __slots__ = ("servable", "version")

    def __init__(self, servable: Servable) -> None:
        self.servable = servable
        self.version = servable.version

    def __enter__(self) -> ServableHandle:
        self.servable.acquire()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.servable.release()


def _run_once(session: Any, options: Any, arrays: Sequence[Array]) -> None:
    session._make_callable_from_options(options)(*arrays)


def _callable(session: Any, options: Any) -> _Graph:
    session._extend_graph()  # it takes the nodes only now
    content = c_api.TF_NewBufferFromString(options.SerializeToString())
    try:
        handle = c_api.TF_SessionMakeCallable(session._session, content)
    finally:
        c_api.TF_DeleteBuffer(content)
    return partial(c_api.TF_SessionRunCallable, session._session, handle)


def graph_error(exc: Any) -> GraphError:
    """TensorFlow's error in this project's family."""
    return GraphError(_CODES.get(exc.error_code, grpc.StatusCode.UNKNOWN), exc.message)


def _as_array(result: Any) -> Any:
    """What a session gave for one tensor; a scalar string comes as bytes."""
    return result if isinstance(result, np.ndarray) else np.array(result, None if hasattr(result, "dtype") else object)


def _fits(shape: Sequence[int], expected: Sequence[int]) -> bool:
    return len(shape) == len(expected) and all(
        wanted in (-1, size) for size, wanted in zip(shape, expected, strict=True)
    )


def _check_sendable(alias: str, info: TensorInfo) -> None:
    if info.dtype in _INSIDE_TENSORFLOW:
        raise Unsupported(
            f"Output {alias!r} is a tensor of type {type_name(info.dtype)}, which lives inside TensorFlow and cannot "
            "be sent; leave it out by an output filter, or ask another signature"
        )


def _names(infos: Iterable[TensorInfo]) -> list[str]:
    return [info.name for info in infos]


def _signature(name: str, definition: Any) -> Signature:
    return Signature(
        name=name,
        inputs={alias: _tensor_info(info) for alias, info in sorted(definition.inputs.items())},
        outputs={alias: _tensor_info(info) for alias, info in sorted(definition.outputs.items())},
        method_name=definition.method_name,
        defaults={alias: tensor_util.MakeNdarray(value) for alias, value in sorted(definition.defaults.items())},
    )


def _batch_shape(info: TensorInfo) -> tuple[int, ...] | None:
    """The shape of an input that arrays can be batches for."""
    return info.shape if info.has_rows and dtype_of(info.dtype) is not None else None


def _tensor_info(info: Any) -> TensorInfo:
    unknown = info.tensor_shape.unknown_rank
    return TensorInfo(info.name, info.dtype, None if unknown else tuple(dim.size for dim in info.tensor_shape.dim))
