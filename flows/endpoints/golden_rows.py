"""
Replays the golden rows of a version.

Publish keeps a few rows and the model's outputs for them with a version; a server that has the same model answers the
same, over either protocol.
"""

from __future__ import annotations

from clients.client import PredictClient
from serving.protocol.errors import HotswapError
from serving.repository.stamp import GoldenRows


class WrongAnswer(HotswapError):
    """The server answers, but not what this version answers."""


def replay_golden(golden: GoldenRows, protocol: str, client: PredictClient, model: str, version: int) -> None:
    """
    Ask for the golden rows by number.

    Raises:
        WrongAnswer: The outputs differ.
    """
    if not golden.agree_with(client.predict(model, golden.inputs, version=version).outputs):
        raise WrongAnswer(
            f"{protocol} version {version} of {model!r} answers the golden rows differently from the model that "
            "was judged"
        )
