"""
Holds requests to the limits of TensorFlow Serving's batching, where it is turned on.

Requests are merged with or without it, see serving/inference/batching.py; the limits are what clients see of it.

Source: tensorflow_serving/batching/batching_session.cc, tensorflow/core/kernels/batching_util/shared_batch_scheduler.h
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from serving.protocol import wire_pb2 as wire
from serving.protocol.errors import FailedPrecondition, InvalidRequest
from serving.protocol.tensors import Array
from serving.protocol.text_protos import read_text_proto


@dataclass(frozen=True, slots=True)
class BatchingLimits:
    """What a request must keep to where TensorFlow Serving's batching is asked for."""

    max_batch_size: int = 1000
    allowed_sizes: tuple[int, ...] = ()

    def check_inputs(self, arrays: Sequence[Array]) -> None:
        """
        Check the batch of a request.

        Raises:
            InvalidRequest: The inputs are not batches of one size, or are too large.
        """
        if any(array.ndim == 0 for array in arrays):
            raise InvalidRequest("Batching Run() input tensors must have at least one dimension")
        sizes = {len(array) for array in arrays}
        if len(sizes) > 1:
            raise InvalidRequest("Batching Run() input tensors must have equal 0th-dimension size")
        size = sizes.pop() if sizes else 0
        if size > self.max_batch_size:
            raise InvalidRequest(f"Task size {size} is larger than maximum input batch size {self.max_batch_size}")

    def padded(self, arrays: list[Array]) -> list[Array]:
        """The inputs, filled up to the next allowed size with their first row."""
        rows = len(arrays[0]) if arrays else 0
        missing = next((size for size in self.allowed_sizes if size >= rows), rows) - rows
        if not rows or not missing:
            return arrays
        return [np.concatenate([array, np.repeat(array[:1], missing, axis=0)]) for array in arrays]

    def checked_outputs(
        self, inputs: Sequence[Array], padded: Sequence[Array], outputs: list[Array]
    ) -> list[Array] | FailedPrecondition:
        """The outputs for the inputs, if each has one row for each padded row; else what is wrong with them."""
        rows, padded_rows = (len(arrays[0]) if arrays else 0 for arrays in (inputs, padded))
        for array in outputs:
            if array.ndim == 0:
                return FailedPrecondition("Batched output tensor has 0 dimensions")
            if len(array) != padded_rows:
                return FailedPrecondition(
                    "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the "
                    "input tensors"
                )
        return outputs if rows == padded_rows else [array[:rows] for array in outputs]


def read_batching_limits(path: Path) -> BatchingLimits:
    """
    The limits in a ``BatchingParameters`` file.

    Raises:
        InvalidRequest: It is not one, or contradicts itself.
        OSError: It cannot be read.
    """
    parameters = read_text_proto(path, wire.BatchingParameters())
    size = parameters.max_batch_size.value if parameters.HasField("max_batch_size") else BatchingLimits().max_batch_size
    _check_positive("max_batch_size", size)
    if parameters.HasField("num_batch_threads"):
        _check_positive("num_batch_threads", parameters.num_batch_threads.value)
    if parameters.batch_timeout_micros.value < 0:
        raise InvalidRequest(f"batch_timeout_micros must be non-negative; was {parameters.batch_timeout_micros.value}")
    if parameters.enable_large_batch_splitting.value:
        _check_splitting(parameters, size)
    allowed = parameters.allowed_batch_sizes
    if allowed and allowed[-1] != size:
        raise InvalidRequest(
            "Last entry in allowed_batch_sizes must match max_batch_size; "
            f"last entry was {allowed[-1]}; expected {size}"
        )
    return BatchingLimits(size, tuple(allowed))


def _check_splitting(parameters: wire.BatchingParameters, size: int) -> None:
    if parameters.HasField("max_enqueued_batches"):
        _check_positive("max_enqueued_batches", parameters.max_enqueued_batches.value)
    largest_run = parameters.max_execution_batch_size.value
    if largest_run > size:
        raise InvalidRequest(f"max_batch_size must be at least max_execution_batch_size; was {size} < {largest_run}")


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise InvalidRequest(f"{name} must be positive; was {value}")
