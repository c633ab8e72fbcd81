"""
Replays the golden rows of a version.

Publish keeps a few rows and the model's outputs for them with a version; a server that has the same model answers the
same, over either protocol.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clients.client import PredictClient
from serving.protocol.errors import HotswapError

_TOLERANCE = 1e-5
"""a batch of another size may change a float's last bits"""


class WrongAnswer(HotswapError):
    """The server answers, but not what this version answers."""


@dataclass(frozen=True, slots=True)
class GoldenRows:
    """Inputs float32 [rows, features], and the outputs float32 [rows, classes] of the model that was judged."""

    inputs: NDArray[np.float32]
    outputs: NDArray[np.float32]

    @classmethod
    def of(cls, stamp: Mapping[str, Any]) -> GoldenRows | None:
        """Those that a stamp keeps."""
        if (kept := stamp.get("golden")) is None:
            return None
        return cls(np.asarray(kept["inputs"], np.float32), np.asarray(kept["outputs"], np.float32))

    def check(self, protocol: str, client: PredictClient, model: str, version: int) -> None:
        """
        Ask for them by number.

        Raises:
            WrongAnswer: The outputs differ.
        """
        answer = np.asarray(client.predict(model, self.inputs, version=version).outputs["output"], np.float32)
        if answer.shape != self.outputs.shape or not np.allclose(answer, self.outputs, rtol=0, atol=_TOLERANCE):
            raise WrongAnswer(
                f"{protocol} version {version} of {model!r} answers the golden rows differently from the model that "
                "was judged"
            )
