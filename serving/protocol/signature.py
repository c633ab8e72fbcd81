"""
Describes what can be asked of a model: its signatures, each with its inputs and outputs.

Server and clients share these classes. They read any ``SignatureDef``, TensorFlow's own class or ours on the wire.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from serving.protocol.tensors import Array, dtype_of

DEFAULT_SIGNATURE = "serving_default"
INIT_SIGNATURE = "__saved_model_init_op"
"""is among the signatures, but no request can use it"""
_NO_DEFAULTS: Mapping[str, Array] = {}


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One input or output of a signature."""

    name: str
    """the graph's; empty for a sparse, ragged or other composite tensor, which cannot be sent or received"""
    data_type: int
    """a number of ``DataType``"""
    shape: tuple[int, ...] | None
    """-1 is any size"""

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """The type of arrays that hold it, if any can."""
        return dtype_of(self.data_type)

    @property
    def has_rows(self) -> bool:
        """Whether its first dimension counts something."""
        return self.shape is not None and self.shape[:1] == (-1,)


@dataclass(frozen=True, slots=True)
class Signature:
    """What a model offers under one name."""

    name: str
    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]
    method_name: str = ""
    defaults: Mapping[str, Array] = field(default_factory=dict)
    """values of inputs that a request may leave out"""


def choose_signature(
    signatures: Mapping[str, Signature], wanted: str, missing: Callable[[str], Exception]
) -> Signature:
    """
    The signature that a request asks for; an empty name means the default one.

    Raises:
        Exception: What `missing` makes of its name, as there is none.
    """
    name = wanted or DEFAULT_SIGNATURE
    if name not in signatures:
        raise missing(name)
    return signatures[name]


def read_signature(name: str, definition: Any, defaults: Mapping[str, Array] = _NO_DEFAULTS) -> Signature:
    """The signature that a ``SignatureDef`` defines."""
    return Signature(
        name,
        {alias: _tensor_info(info) for alias, info in sorted(definition.inputs.items())},
        {alias: _tensor_info(info) for alias, info in sorted(definition.outputs.items())},
        definition.method_name,
        defaults,
    )


def _tensor_info(info: Any) -> TensorInfo:
    has_shape = info.HasField("tensor_shape") and not info.tensor_shape.unknown_rank
    return TensorInfo(info.name, info.dtype, tuple([dim.size for dim in info.tensor_shape.dim]) if has_shape else None)
