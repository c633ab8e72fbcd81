"""Which servable does a request ask for?"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model by name and, at most one of the two, by version number or by version label; neither means the highest available."""

    name: str
    version: int | None = None
    label: str | None = None
