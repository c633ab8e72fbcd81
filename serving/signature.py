"""What can a model be asked for?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from serving.tensors import Array

DEFAULT_SIGNATURE = "serving_default"


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One input or output of a signature: the graph's tensor, its ``DataType`` number and its shape (-1: any size)."""

    name: str
    dtype: int
    shape: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Signature:
    """What a model offers under one name."""

    name: str
    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]
    method_name: str
    defaults: Mapping[str, Array]

    @property
    def batch_major(self) -> bool:
        """Do inputs and outputs count the same rows in their first dimension, with all else fixed on the way out?"""
        return (
            bool(self.inputs)
            and not self.defaults
            and all(info.shape is not None and info.shape[:1] == (-1,) for info in self.inputs.values())
            and all(
                info.shape is not None and info.shape[:1] == (-1,) and -1 not in info.shape[1:]
                for info in self.outputs.values()
            )
        )
