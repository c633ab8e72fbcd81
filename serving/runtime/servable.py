"""Owns one loaded version of a model: its session, its signatures, and the calls that were made of them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence, Set
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from tensorflow.core.framework import types_pb2

from serving.protocol.errors import ServingError
from serving.protocol.signature import Signature, TensorInfo, read_signature
from serving.protocol.tensors import Array, decode
from serving.runtime.batching_limits import BatchingLimits
from serving.runtime.call import Call
from serving.runtime.operations import Operations
from serving.runtime.requested import check_outputs, with_defaults
from serving.runtime.row_independence.analysis import Analysis
from serving.runtime.row_independence.values import Origin
from serving.runtime.tf_session import Session
from serving.runtime.usage import Usage


class Servable:
    """
    One version of one model, ready to run.

    `acquire` and `release` count its users; once `retire` has been called, the last of them frees the graph. All three
    are called on the event loop's thread alone.
    """

    def __init__(self, model: str, version: int, path: Path, session: Session, meta_graph: Any) -> None:
        self.model = model
        self.version = version
        self.path = path
        self.session = session
        self.signature_defs: Mapping[str, Any] = dict(meta_graph.signature_def)
        self.signatures: Mapping[str, Signature] = {
            name: _signature(name, signature) for name, signature in self.signature_defs.items()
        }
        self.double_signatures = frozenset(
            name
            for name, signature in self.signatures.items()
            if any(info.data_type == types_pb2.DT_DOUBLE for info in signature.inputs.values())
        )
        """the signatures that take a double"""
        self.declared = frozenset(
            (frozenset(_names(signature.inputs)), frozenset(_names(signature.outputs)))
            for signature in self.signatures.values()
        )
        """the tensors that go into and come out of each signature"""
        self.limits: BatchingLimits | None = None
        """what batching requires of requests"""
        self.usage = Usage()
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
            with suppress(ServingError):  # the first request for it is answered with it
                self._call(self.signatures[name], ())

    def obstacle(self, signature: Signature, outputs: Sequence[str] = ()) -> Origin | None:
        """
        The operation that stands in the way of running several requests as one; None where each row is by itself.

        What one signature is found to be is kept: nothing is looked for while requests wait.
        """
        shapes = {info.name: _batch_shape(info) for info in signature.inputs.values()}
        feeds = tuple(shapes.items())
        fetches = [signature.outputs[alias].name for alias in outputs or signature.outputs]
        if missing := [fetch for fetch in fetches if (feeds, fetch) not in self._obstacles]:
            found = self._analysis.obstacles(shapes, missing)
            self._obstacles |= {(feeds, fetch): found[fetch] for fetch in missing}
        return next((each for fetch in fetches if (each := self._obstacles[feeds, fetch]) is not None), None)

    def acquire(self) -> None:
        """Keep the graph until `release`."""
        self._users += 1

    def release(self) -> None:
        """End one `acquire`."""
        self._users -= 1
        if self._users == 0 and self._free is not None:
            self._free()

    def retire(self, free: Callable[[], None]) -> None:
        """Call `free` once this servable is no longer used: now, or at the last `release`."""
        self._free = free
        if self._users == 0:
            free()

    def close(self) -> None:
        """Give the memory back."""
        self._calls.clear()
        self.operations.clear()
        self._analysis.clear()
        self.session.close()


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


def _names(infos: Mapping[str, TensorInfo]) -> list[str]:
    return [info.name for info in infos.values()]


def _signature(name: str, definition: Any) -> Signature:
    defaults = {alias: decode(value) for alias, value in sorted(definition.defaults.items())}
    return read_signature(name, definition, defaults)


def _batch_shape(info: TensorInfo) -> tuple[int, ...] | None:
    """The shape of an input that arrays can be batches for."""
    return info.shape if info.has_rows and info.dtype is not None else None
