"""Rows made from a signature, to ask a model of which nothing else is known: plausible values of its types."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flows.data.rows import Inputs
from flows.training.inspection import Signature, Tensor, tensors_of

_ROWS = 32
_ANY_SIZE = 8
_WORDS = np.array(["", "a", "some words", "yes", "2024-05-17"], object)


def made_rows(signature: Signature) -> Inputs:
    """The same rows for the same signature: numbers around 0, small integers, truth values, and words."""
    random = np.random.default_rng(0)
    return {name: _made(tensor, random) for name, tensor in tensors_of(signature.inputs).items()}


def _made(tensor: Tensor, random: np.random.Generator) -> NDArray[Any]:
    sizes = () if tensor.shape is None else tensor.shape[1:]
    shape = (_ROWS, *(_ANY_SIZE if size == -1 else size for size in sizes))
    if tensor.is_text:
        return random.choice(_WORDS, shape)
    if tensor.dtype.kind in "bui":
        return random.integers(0, 2, shape).astype(tensor.dtype)
    return random.standard_normal(shape).astype(tensor.dtype)
