"""Names the servable that a request is for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model by name, and by version number or by label; with neither, whatever the server answers with by default."""

    name: str
    version: int | None = None
    label: str | None = None
