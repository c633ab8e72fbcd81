"""Says which signatures have requests that arrive together run as one, and what stands in the way of the others."""

from __future__ import annotations

from dataclasses import dataclass

from serving.protocol.signature import INIT_SIGNATURE
from serving.runtime.row_independence.analysis import INPUT, OUTPUT
from serving.runtime.row_independence.values import Origin
from serving.runtime.servable import Servable
from serving.settings import NEVER


@dataclass(frozen=True, slots=True)
class Merging:
    """Whether the requests of a signature are run together."""

    merges: bool
    node: str | None = None
    """the node of the graph that stands in the way"""
    operation: str | None = None
    """its operation"""
    reason: str | None = None
    """why they run one by one, in a sentence"""


def merging_of(servable: Servable, merge_requests: str) -> dict[str, Merging]:
    """By signature, for requests that ask for all outputs."""
    return {
        name: _merging(servable.obstacle(signature), merge_requests)
        for name, signature in servable.signatures.items()
        if name != INIT_SIGNATURE
    }


def _merging(obstacle: Origin | None, merge_requests: str) -> Merging:
    if merge_requests == NEVER:
        return Merging(False, reason=f"The server was started with --merge_requests={NEVER}.")
    if obstacle is None:
        return Merging(True)
    if obstacle.operation in (INPUT, OUTPUT):
        name = obstacle.name or "of several tensors"
        reason = f"The {obstacle.operation} {name} does not have the batch, of any size, as its first dimension."
    else:
        reason = f"{obstacle.name} ({obstacle.operation}) is not proven to keep the rows of a batch apart."
    return Merging(False, obstacle.name, obstacle.operation, reason)
