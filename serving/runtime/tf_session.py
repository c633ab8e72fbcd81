"""
Runs a graph in TensorFlow, and is the only place that knows TensorFlow's private parts.

A session callable runs a small graph in about 25 µs, an eager signature function in 150 µs. The graph is imported
through TensorFlow's C API: ``importer.import_graph_def`` makes Python objects for all nodes and functions too, which
takes longer than the rest, while requests wait for Python's lock. pyproject.toml pins the TensorFlow whose parts these
are; tests/serving/runtime/test_tf_session.py names them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from tensorflow.core.protobuf import config_pb2
from tensorflow.python.client import pywrap_tf_session as c_api
from tensorflow.python.client import session as tf_session
from tensorflow.python.framework import c_api_util, errors_impl, importer, op_def_registry, ops
from tensorflow.python.lib.io import _pywrap_record_io
from tensorflow.python.saved_model.pywrap_saved_model import fingerprinting

from serving.protocol.errors import GraphError, InvalidRequest
from serving.protocol.tensors import Array
from serving.runtime.background import Native, at_once

ALL_THREADS, CALLERS_THREAD = 0, -1
"""where a callable runs: in TensorFlow's pool, or in the thread that calls it"""

Run = Callable[[Sequence[Array]], list[Array]]
"""Runs a graph: the fed arrays in, the fetched ones out."""

_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


class Session:
    """The graph of one SavedModel, imported and ready to run, with the variables that it has in memory."""

    def __init__(self, meta_graph: Any, intra_op_threads: int, inter_op_threads: int, native: Native = at_once) -> None:
        """
        Args:
            native: How TensorFlow is called for what it does in C++ for long.

        Raises:
            GraphError: TensorFlow refuses the graph.
        """
        self.native = native
        self._graph = ops.Graph()
        config = config_pb2.ConfigProto(
            allow_soft_placement=True,
            intra_op_parallelism_threads=intra_op_threads,
            inter_op_parallelism_threads=inter_op_threads,
        )
        # It changes no graph, and takes a quarter of a load.
        config.graph_options.rewrite_options.disable_tfg_optimizer = True
        try:
            with _translated():
                _import(self._graph, meta_graph)
                self._session = tf_session.Session(graph=self._graph, config=config)
        except BaseException:
            ops.dismantle_graph(self._graph)
            raise

    def callable(
        self, feeds: Sequence[str], fetches: Sequence[str], threads: int = CALLERS_THREAD, timeout_milliseconds: int = 0
    ) -> Run:
        """
        A function that runs the graph; TensorFlow keeps what it is made of until `close`.

        Args:
            threads: `ALL_THREADS` or `CALLERS_THREAD`.
            timeout_milliseconds: When `ALL_THREADS` stop running it; 0 means never.

        Raises:
            GraphError: TensorFlow refuses these tensors. The function raises it too, with TensorFlow's code and text,
                and `InvalidRequest` for an array that TensorFlow cannot take.
        """
        distinct = list(dict.fromkeys(fetches))
        options = config_pb2.CallableOptions(feed=feeds, fetch=distinct)
        options.run_options.inter_op_thread_pool = threads
        options.run_options.timeout_in_ms = timeout_milliseconds
        with _translated():
            run_callable = self.native(self._session._make_callable_from_options, options)
        if len(distinct) == len(fetches):
            return partial(_run, run_callable)
        positions = [distinct.index(name) for name in fetches]
        return lambda arrays: [found[at] for found in [_run(run_callable, arrays)] for at in positions]

    def run_operation(self, name: str, feeds: Mapping[str, Array]) -> None:
        """
        Run one operation that has no result.

        Raises:
            GraphError: TensorFlow refused.
        """
        options = config_pb2.CallableOptions(feed=list(feeds), target=[name])
        with _translated():
            run_callable = self.native(self._session._make_callable_from_options, options)
            self.native(run_callable, *feeds.values())

    def close(self) -> None:
        """Give the memory back."""
        self._session.close()
        ops.dismantle_graph(self._graph)  # its objects refer to each other and would wait for a rare collection


def operation_definition(operation: str) -> Any:
    """The ``OpDef`` of an operation; None for one that TensorFlow does not know."""
    return op_def_registry.get(operation)


def load_operations(library: Path) -> None:
    """
    Make the operations of a shared library known.

    Raises:
        GraphError: TensorFlow cannot load it.
    """
    with _translated():
        c_api.TF_LoadLibrary(str(library))


def read_records(path: Path) -> Iterator[bytes]:
    """
    The records of a TFRecord file.

    Raises:
        GraphError: It is none, or is damaged.
    """
    with _translated():
        yield from _pywrap_record_io.RecordIterator(str(path), "")


def unreadable_reason(saved_model: Path) -> tuple[grpc.StatusCode, str]:
    """Why TensorFlow's own reader refuses a ``saved_model.pb``: it ends too early, or is something else."""
    try:
        fingerprinting.CreateFingerprintDef(str(saved_model))
    except fingerprinting.FingerprintException as exc:
        code, _, text = str(exc).splitlines()[-1].partition(": ")
        return grpc.StatusCode[code], text
    return grpc.StatusCode.DATA_LOSS, f"Can't parse {saved_model}/saved_model.pb as binary proto"


@contextmanager
def _translated() -> Iterator[None]:
    """TensorFlow's errors as this project's."""
    try:
        yield
    except errors_impl.OpError as exc:
        raise _graph_error(exc) from exc


def _graph_error(exc: Any) -> GraphError:
    return GraphError(_CODES.get(exc.error_code, grpc.StatusCode.UNKNOWN), exc.message)


def _import(graph: Any, meta_graph: Any) -> None:
    graph_def = meta_graph.graph_def
    importer._RemoveDefaultAttrs(meta_graph.meta_info_def.stripped_op_list, graph_def)
    options = c_api_util.ScopedTFImportGraphDefOptions()
    c_api.TF_ImportGraphDefOptionsSetUniquifyNames(options.options, True)
    content = c_api.TF_NewBufferFromString(graph_def.SerializeToString())
    try:
        with graph._c_graph.get() as c_graph:
            results = c_api.TF_GraphImportGraphDefWithResults(c_graph, content, options.options)
    finally:
        c_api.TF_DeleteBuffer(content)
    c_api.TF_DeleteImportGraphDefResults(results)


def _run(run_callable: Callable[..., list[Any]], arrays: Sequence[Array]) -> list[Array]:
    try:
        results = run_callable(*arrays)
    except errors_impl.OpError as exc:
        raise _graph_error(exc) from exc
    except (TypeError, ValueError, RuntimeError) as exc:
        raise InvalidRequest(str(exc)) from exc
    for position, result in enumerate(results):
        if type(result) is not np.ndarray:
            results[position] = _as_array(result)
    return results


def _as_array(result: Any) -> Any:
    """What a session gave for one tensor; a scalar string comes as bytes."""
    return result if isinstance(result, np.ndarray) else np.array(result, None if hasattr(result, "dtype") else object)
